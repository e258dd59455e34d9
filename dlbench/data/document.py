"""One document of a task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dlbench.data.thinking import Thinking
from dlbench.errors import DlbenchError

Split = Literal["test", "fit"]
"""What documents are for: to be scored, or to fit methods on."""

Chat = Callable[..., str]
"""Renders messages with a model's chat template: (messages, add_generation_prompt=…) → text."""


@dataclass(frozen=True)
class Document:
    """A prompt, its references, and when to stop."""

    id: str
    """Unique within the task and split."""
    prompt: str
    references: tuple[str, ...]
    limit: int
    """Maximum number of new tokens; 1 for documents that are scored by loglikelihood."""
    stop: tuple[str, ...]
    """Stop texts; the output ends before them."""
    index: int
    """Index within the split."""
    difficulty: int | None
    split: Split = "test"
    pairs: tuple[tuple[str, str], ...] = ()
    """Context and continuation of every answer, for scoring by loglikelihood; empty where the model generates."""
    chance: float = 0.0
    """Expected score of a random guess."""
    delimiter: str = " "
    """Text between the prompt and its answer."""
    prompt_tokens: int | None = None
    """Maximum number of prompt tokens, where the task has such a limit."""
    body: tuple[int, int] | None = None
    """Start and end of the part of a long prompt that is cut at its end; None: the prompt is cut at its beginning."""
    line: int | None = field(default=None, compare=False)
    """Line in the file of documents, from 1; None where it is from no such file."""
    source: str | None = None
    """Hash of the source, such as a passage; documents with the same source are not independent."""
    thinking: Thinking | None = None
    """Marks of the thinking before the answer; None where the whole output is the answer."""

    @property
    def named(self) -> str:
        """Name in messages."""
        return f"document {self.id}" + (f" (line {self.line} of its file)" if self.line is not None else "")

    def check(self) -> None:
        """Check that its texts can be encoded, to be tokenised and written to files.

        Raises:
            DlbenchError: a text has a lone surrogate, which no encoding can represent.
        """
        contexts = (part for pair in self.pairs for part in pair)
        for what, texts in (("prompt", (self.prompt,)), ("reference", self.references), ("answer", contexts)):
            for text in texts:
                if (fault := no_text(text)) is not None:
                    raise DlbenchError(f"{self.named}: its {what} holds {fault}: mend the data")

    def answer(self, output: str) -> str:
        """The scored part of an output: without thinking, up to the first stop text."""
        return cut(output if self.thinking is None else self.thinking.answer(output), self.stop)


def no_text(text: str) -> str | None:
    """Describe a lone surrogate in a string and where it is; None where there is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"a lone surrogate (\\u{ord(text[error.start]):04x}, character {error.start + 1})"
    return None


def cut(output: str, stop: Sequence[str]) -> str:
    """The output up to the texts that end it, cut at one after the other in their order, as lm-eval cuts."""
    for text in filter(None, stop):
        output = output.split(text, 1)[0]
    return output


def documents_sha256(documents: Sequence[Document]) -> str:
    """sha256 over everything of the documents that a score depends on."""
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
