"""Thinking before the answer: which marks enclose it, and which part of an output is the answer.

Everything up to the last end mark is thinking: it is charged, kept in samples and shown, but metrics and stop texts
ignore it. An output whose thinking does not end has no answer. Thinking begins at the start of the output, or directly
after an end mark; a start mark further on is part of the answer.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from dlbench.errors import DlbenchError

PAIRS = (
    ("<think>", "</think>"),  # DeepSeek-R1 and its distillates, Qwen3, QwQ, SmolLM3, Phi-4-reasoning, OLMo
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
)
"""Start and end marks of known models."""


@dataclass(frozen=True)
class Thinking:
    """The marks around a model's thinking, for one prompt."""

    start: str
    """Start mark; empty where it is not known: the output is then taken to begin inside the thinking."""
    end: str
    """End mark."""
    opened: bool = False
    """Whether the output begins inside the thinking."""
    special: tuple[int, ...] = ()
    """Token ids of the marks that are special tokens; other special tokens are left out when decoding."""

    def after(self, prompt: str) -> Thinking:
        """The same for a prompt; many chat templates end in the start mark."""
        return dataclasses.replace(self, opened=not self.start or prompt.rstrip().endswith(self.start))

    def answer(self, output: str) -> str:
        """The output after the last end mark, without leading white space; all of it where there is no thinking."""
        return self._split(output)[0]

    def unfinished(self, output: str) -> bool:
        """Whether the thinking of an output does not end."""
        return self._split(output)[1]

    def _split(self, output: str) -> tuple[str, bool]:
        """The answer, and whether the thinking does not end."""
        _, ended, rest = output.rpartition(self.end)
        if self.opened and not ended:
            return "", True
        answer = rest.lstrip()
        return ("", True) if self.start and answer.startswith(self.start) else (answer, False)

    def text(self, tokenizer: Any, tokens: Sequence[int]) -> str:
        """Decode tokens without special tokens, except the marks."""
        if not self.special:
            return str(tokenizer.decode(tokens, skip_special_tokens=True))
        runs = groupby(tokens, self.special.__contains__)
        return "".join(tokenizer.decode(list(run), skip_special_tokens=not mark) for mark, run in runs)


def choose(asked: str, tokenizer: Any, chat: bool) -> Thinking | None:
    """The marks of a model's thinking; None where the whole output is the answer.

    Args:
        asked: the end mark, or a number as its token id; "off" for none; "auto" searches the chat template, then the
            tokenizer's added tokens, for a known mark.
        tokenizer: the model's.
        chat: whether prompts go into a chat template; without one, "auto" finds no thinking.

    Raises:
        DlbenchError: a token id is not the tokenizer's, or decodes to no text by itself.
    """
    if asked == "off" or (asked == "auto" and not chat):
        return None
    if asked == "auto":
        template, added = str(tokenizer.chat_template), tokenizer.get_added_vocab()
        known = [pair for pair in PAIRS if pair[1] in template] or [pair for pair in PAIRS if {*pair} <= added.keys()]
        if not known:
            return None
        start, end = known[0]
    else:
        end = _spelled(int(asked), tokenizer) if asked.isdecimal() else asked
        # An unknown end mark has an unknown start mark, unless it looks like a closing tag.
        start = {end: start for start, end in PAIRS}.get(end, end.replace("/", "", 1) if "/" in end else "")
    ids = {i for mark in (start, end) for i in tokenizer(mark, add_special_tokens=False)["input_ids"]}
    skipped = [i for i in ids if tokenizer.decode([i]) and not tokenizer.decode([i], skip_special_tokens=True)]
    return Thinking(start, end, special=tuple(sorted(skipped)))


def mentioned(outputs: Iterable[str]) -> tuple[int, str]:
    """Count outputs that contain a known end mark or begin with a known start mark; and the most frequent end mark."""
    ends = Counter(end for text in outputs for start, end in PAIRS if end in text or text.lstrip().startswith(start))
    return (ends.total(), ends.most_common(1)[0][0]) if ends else (0, "")


def _spelled(token: int, tokenizer: Any) -> str:
    text = str(tokenizer.decode([token])) if token < len(tokenizer) else ""
    if not text.strip() or not text.isprintable() or "\ufffd" in text:
        raise DlbenchError(
            f"think end token {token}: the tokenizer makes {text!r} of this id, which no text can be looked through "
            "for: give another id, or a mark such as </think>"
        )
    return text
