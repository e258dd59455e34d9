"""Recognise rows that ask a model the same question, whatever their references.

The order of the answers to choose from does not matter, neither beside the question nor within it: some tasks shuffle
them in every split.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from operator import itemgetter
from typing import Any

Row = Mapping[str, Any]
_Read = Callable[[Row], Any]

_MARK = re.compile(r"(?:^|(?<=\s))(?:\(([A-Z])\)|([A-Z])([.):]))[ \t]*", re.MULTILINE)
"""The letter before an answer in a text: `A.`, `A)`, `A:`, `(A)`."""
_BULLET = re.compile(r"^\W*(?:\w{1,2}[.):]+\s)?\s*")
_PLAINLY = 3
"""Number of lettered items from which a list is taken for answers by the letters alone; two may be anything."""


class Questions:
    """Hashes what rows ask: the question without few-shot examples, and the answers to choose from if there are any.

    Args:
        inner: lm-eval's task.
        answered: whether the references count too, for tasks where all prompts are equal.
    """

    def __init__(self, inner: Any, answered: bool = False) -> None:
        self._inner, self._answered = inner, answered

    def hash(self, row: Row) -> bytes | None:
        """The hash of what a row asks; None where lm-eval fails on the row: an error once its prompt is needed."""
        try:
            parts = self._parts(row)
        except Exception:
            return None
        return hashlib.sha256(json.dumps(parts, default=str).encode()).digest()

    def _parts(self, row: Row) -> list[Any]:
        inner, fields = self._inner, {name: read(row) for name, read in self._readers.items()}
        given = fields.get("doc_to_choice", [])
        choices = _listed(given)
        parts = [inner.doc_to_prefix(row)]
        if not getattr(inner, "multiple_input", 0):
            parts.append(_unordered(fields["doc_to_text"], choices))
        elif choices is None:
            parts.append(fields["doc_to_text"])  # else it is the index of the right one among the beginnings
        parts.append(given if choices is None else sorted(choices))
        if "doc_to_target" in fields:
            parts.append(fields["doc_to_target"])
        elif self._answered:
            parts.append(_named(inner.doc_to_target(row), inner.doc_to_choice(row)))
        return parts

    @cached_property
    def _readers(self) -> Mapping[str, _Read]:
        inner = self._inner
        names = ["doc_to_text"]
        chosen = inner.OUTPUT_TYPE != "generate_until" and inner.config.doc_to_choice is not None
        if chosen:
            names.append("doc_to_choice")
        # A continuation that is scored is part of the question; so is what follows where the answers are beginnings.
        asked = inner.OUTPUT_TYPE == "loglikelihood" or getattr(inner, "multiple_input", 0)
        if asked or (self._answered and not chosen):
            names.append("doc_to_target")
        return {name: self._reader(name) for name in names}

    def _reader(self, name: str) -> _Read:
        """A function that gives a field of the task for a row; a template is compiled once, not once per row."""
        from lm_eval.api.task import ConfigurableTask
        from lm_eval.utils import env

        inner, given = self._inner, getattr(self._inner.config, name)
        plain = getattr(type(inner), name) is getattr(ConfigurableTask, name) and inner.prompt is None
        if not isinstance(given, str) or not plain:
            method: _Read = getattr(inner, name)
            return method
        if given in inner.features:
            return itemgetter(given)
        template = env.from_string(given)
        return lambda row: template.render(**row)


def _listed(choices: Any) -> list[str] | None:
    """Answers to choose from as a list; a template gives them as the text of one. None where they are no list."""
    if isinstance(choices, str):
        try:
            choices = ast.literal_eval(choices)
        except (SyntaxError, ValueError):
            return None
    return [str(one) for one in choices] if isinstance(choices, list | tuple) else None


def _named(target: Any, choices: Sequence[Any]) -> list[str]:
    """The right answers as text, sorted, whatever their indices."""
    several = target if isinstance(target, list) else [target]
    return sorted(str(choices[one] if isinstance(one, int) else one) for one in several)


def _unordered(text: Any, choices: Iterable[str] | None) -> Any:
    """A question, with the answers that it contains sorted."""
    if not isinstance(text, str):
        return text
    known = {one.strip() for one in choices or ()} - {""}
    lines = text.split("\n")
    bare = [_BULLET.sub("", line).strip() for line in lines]
    places = [place for place, one in enumerate(bare) if one in known or lines[place].strip() in known]
    if len(places) > 1:
        for place, one in zip(places, sorted(bare[place] for place in places), strict=True):
            lines[place] = one
        return "\n".join(lines)
    marks = _lettered(text)
    if not marks:
        return text
    items = [text[a.end() : b.start()].strip() for a, b in pairwise(marks)]
    last, newline, rest = text[marks[-1].end() :].partition("\n")
    items.append(last.strip())
    labelled = len(items) > 1 and {_letter(mark) for mark in marks} <= {one.strip("().: ") for one in known}
    plainly = len(items) >= _PLAINLY and all(mark[3] != ":" for mark in marks)  # `A:` may be a speaker
    return [text[: marks[0].start()], sorted(items), newline + rest] if labelled or plainly else text


def _lettered(text: str) -> list[re.Match[str]]:
    """The longest run of consecutive letters before answers, from A on."""
    rows: list[list[re.Match[str]]] = []
    for mark in _MARK.finditer(text):
        letter = _letter(mark)
        if letter == "A":
            rows.append([mark])
        for row in rows:
            if ord(letter) == ord(_letter(row[-1])) + 1:
                row.append(mark)
    return max(rows, key=len, default=[])


def _letter(mark: re.Match[str]) -> str:
    return mark[1] or mark[2]
