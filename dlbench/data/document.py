"""One document of a task: its prompt, its references, and what ends an output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dlbench.data.thinking import Thinking
from dlbench.errors import DlbenchError

Split = Literal["test", "fit"]
"""Use of documents: `test` to be scored, `fit` to fit methods on."""

Chat = Callable[..., str]
"""Puts messages into a model's chat template: (messages, add_generation_prompt=…) → text."""


@dataclass(frozen=True)
class Document:
    """One prompt, its references, and when generation stops."""

    id: str
    """Unique within the task and split."""
    prompt: str
    references: tuple[str, ...]
    limit: int
    """Most new tokens; 1 where given answers are scored and nothing is generated."""
    stop: tuple[str, ...]
    """Texts that end the output, and are not part of it."""
    index: int
    """Index of its row within the split."""
    difficulty: int | None
    split: Split = "test"
    pairs: tuple[tuple[str, str], ...] = ()
    """Context and continuation of every given answer; empty where the model generates a text."""
    chance: float = 0.0
    """Score of a random guess."""
    delimiter: str = " "
    """Text between the prompt and the answer."""
    prompt_tokens: int | None = None
    """Most tokens of the prompt; None where the task sets no limit."""
    body: tuple[int, int] | None = None
    """Start and end of the part of a prompt whose end is cut if the prompt is too long; None: its beginning is cut."""
    line: int | None = field(default=None, compare=False)
    """Line number in its file, from 1; None where it is not from a file of documents."""
    source: str | None = None
    """Hash of what it was taken from, such as a passage; documents that share one are not independent."""
    thinking: Thinking | None = None
    """Marks of the model's thinking before the answer; None where the whole output is the answer."""

    @property
    def named(self) -> str:
        """The document's name in messages."""
        return f"document {self.id}" + (f" (line {self.line} of its file)" if self.line is not None else "")

    def check(self) -> None:
        """Check that its texts can be tokenised and written to a file.

        Raises:
            DlbenchError: one of them contains half of a surrogate pair, which no encoding can represent.
        """
        contexts = (part for pair in self.pairs for part in pair)
        for what, texts in (("prompt", (self.prompt,)), ("reference", self.references), ("answer", contexts)):
            for text in texts:
                if (fault := no_text(text)) is not None:
                    raise DlbenchError(f"{self.named}: its {what} holds {fault}: correct the data")

    def answer(self, output: str) -> str:
        """The part of an output that is scored: without the thinking, and up to the first stop text."""
        return cut(output if self.thinking is None else self.thinking.answer(output), self.stop)


def no_text(text: str) -> str | None:
    """What a string contains that no encoding can represent, and where; None where there is nothing."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (\\u{ord(text[error.start]):04x}, character {error.start + 1})"
    return None


def cut(output: str, stop: Sequence[str]) -> str:
    """Cut an output at each stop text, one after the other in their order, as lm-eval does."""
    for text in filter(None, stop):
        output = output.split(text, 1)[0]
    return output


def documents_sha256(documents: Sequence[Document]) -> str:
    """sha256 over everything in the documents that a score depends on."""
    digest = hashlib.sha256()
    for d in documents:
        content = [d.id, d.prompt, d.references, d.limit, d.stop]
        more = {"pairs": d.pairs, "prompt_tokens": d.prompt_tokens, "body": d.body, "thinking": _marks(d)}
        if more := {name: value for name, value in more.items() if value}:
            content.append(more)
        digest.update(json.dumps(content).encode())
    return digest.hexdigest()


def _marks(document: Document) -> list[object]:
    thinking = document.thinking
    return [] if thinking is None else [thinking.start, thinking.end, thinking.opened]


def with_thinking(documents: Iterable[Document], thinking: Thinking | None) -> list[Document]:
    """Give documents the marks of the model's thinking; None: the whole output is the answer."""
    if thinking is None:
        return list(documents)
    return [replace(d, thinking=thinking.after(d.prompt)) for d in documents]
