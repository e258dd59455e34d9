"""What the rows of a task ask a model: rows that ask the same are one document to it, whatever their references."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from operator import itemgetter
from typing import Any

Row = Mapping[str, Any]
_Read = Callable[[Row], Any]


class Questions:
    """Tells what rows ask, by a hash: the question without examples, and the answers to choose from if there are any.

    Args:
        inner: lm-eval's task.
        answered: whether the references count too, for tasks whose prompts tell no rows apart.
    """

    def __init__(self, inner: Any, answered: bool = False) -> None:
        self._inner, self._answered = inner, answered

    def hash(self, row: Row) -> bytes | None:
        """The hash of what a row asks; None where lm-eval makes nothing of it, which is told when it is needed."""
        try:
            parts = [read(row) for read in self._parts]
        except Exception:
            return None
        return hashlib.sha256(json.dumps(parts, default=str).encode()).digest()

    @cached_property
    def _parts(self) -> list[_Read]:
        inner = self._inner
        weighed = inner.OUTPUT_TYPE != "generate_until"
        names = ["doc_to_text"]
        if weighed and inner.config.doc_to_choice is not None:
            names.append("doc_to_choice")
        # A continuation that is weighed is asked about; so is what follows where the choice is among beginnings.
        if self._answered or inner.OUTPUT_TYPE == "loglikelihood" or getattr(inner, "multiple_input", 0):
            names.append("doc_to_target")
        return [*(self._reader(name) for name in names), inner.doc_to_prefix]

    def _reader(self, name: str) -> _Read:
        """What a field of the task makes of a row; a template is compiled once here, and for every row by lm-eval."""
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
