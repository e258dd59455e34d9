"""Thinking before the answer: where it ends, and what is then the answer.

What a model writes up to the last end of its thinking is paid for, kept in samples and shown, but it is no answer:
metrics do not see it, and stop texts do not act in it. Of an output whose thinking does not end there is no answer.
Thinking begins at the beginning, or anew right after its end; a mark of it that stands further on is mentioned.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from dlbench.errors import DlbenchError

if TYPE_CHECKING:
    from dlbench.data.document import Document
    from dlbench.prompting.chat_template import ChatTemplate

PAIRS = (
    ("<think>", "</think>"),  # DeepSeek-R1 and its distillates, Qwen3, QwQ, SmolLM3, Phi-4-reasoning, OLMo
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<thinking>", "</thinking>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),  # Kimi
    ("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
)
"""What begins and ends the thinking of known models."""


@dataclass(frozen=True)
class Thinking:
    """How one model thinks, before one prompt's answer."""

    start: str
    """Empty where it is not known: the output then begins within."""
    end: str
    opened: bool = False
    """Whether the output begins within."""
    special: tuple[int, ...] = ()
    """Token ids of the marks that are special tokens, which a text is otherwise decoded without."""

    def after(self, prompt: str) -> Thinking:
        """The same after a prompt: many chat templates begin the thinking themselves."""
        return dataclasses.replace(self, opened=not self.start or prompt.rstrip().endswith(self.start))

    def answer(self, output: str) -> str:
        """What follows the last end of the thinking, without leading white space; all, where there was none."""
        return self._parted(output)[0]

    def unfinished(self, output: str) -> bool:
        """Whether the thinking of an output does not end."""
        return self._parted(output)[1]

    def _parted(self, output: str) -> tuple[str, bool]:
        _, ended, rest = output.rpartition(self.end)
        if self.opened and not ended:
            return "", True
        answer = rest.lstrip()
        return ("", True) if self.start and answer.startswith(self.start) else (answer, False)

    def text(self, tokenizer: Any, tokens: Sequence[int]) -> str:
        """Decode tokens without special ones, but with the marks of thinking."""
        if not self.special:
            return str(tokenizer.decode(tokens, skip_special_tokens=True))
        runs = groupby(tokens, self.special.__contains__)
        return "".join(tokenizer.decode(list(run), skip_special_tokens=not mark) for mark, run in runs)


def choose(asked: str, tokenizer: Any, chat: ChatTemplate | None) -> Thinking | None:
    """How a model thinks; None where all that it writes is scored.

    Args:
        asked: the mark that ends thinking, or a number as its token id; "off" for none; "auto" looks whether the chat
            template names a mark that is known, or the tokenizer has it as a token of its own.
        tokenizer: the model's.
        chat: None where prompts stand in no chat template: a model is not taken to think there by itself.

    Raises:
        DlbenchError: a token id is none of the tokenizer's, or no text by itself.
    """
    if asked == "off" or (asked == "auto" and chat is None):
        return None
    if asked == "auto":
        template, added = str(tokenizer.chat_template), tokenizer.get_added_vocab()
        known = [pair for pair in PAIRS if pair[1] in template] or [pair for pair in PAIRS if {*pair} <= added.keys()]
        if not known:
            return None
        start, end = known[0]
    else:
        end = _spelled(int(asked), tokenizer) if asked.isdecimal() else asked
        # Of a mark that nobody knows it is not known what begins the thinking, unless it is like a tag.
        start = {end: start for start, end in PAIRS}.get(end, end.replace("/", "", 1) if "/" in end else "")
    ids = {i for mark in (start, end) for i in tokenizer(mark, add_special_tokens=False)["input_ids"]}
    skipped = [i for i in ids if tokenizer.decode([i]) and not tokenizer.decode([i], skip_special_tokens=True)]
    return Thinking(start, end, special=tuple(sorted(skipped)))


def mentioned(outputs: Iterable[str]) -> tuple[int, str]:
    """How many outputs hold a known mark that ends thinking, or begin with one that begins it; the mark most have."""
    found = Counter(end for text in outputs for start, end in PAIRS if end in text or text.lstrip().startswith(start))
    return (found.total(), found.most_common(1)[0][0]) if found else (0, "")


def _spelled(token: int, tokenizer: Any) -> str:
    text = str(tokenizer.decode([token])) if token < len(tokenizer) else ""
    if not text.strip() or not text.isprintable() or "\ufffd" in text:
        raise DlbenchError(
            f"think end token {token}: the tokenizer makes {text!r} of this id, which no text can be looked through "
            "for: give another id, or a mark such as </think>"
        )
    return text


def marked(documents: Iterable[Document], thinking: Thinking | None) -> list[Document]:
    """The documents of a model that thinks, or as they are."""
    if thinking is None:
        return list(documents)
    return [dataclasses.replace(d, thinking=thinking.after(d.prompt)) for d in documents]
