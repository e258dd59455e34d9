"""One document of a task, and the texts around it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from dlbench.data.thinking import Thinking
from dlbench.errors import DlbenchError

Split = Literal["test", "fit"]
"""What documents are for: to be scored, or to fit methods on."""

Chat = Callable[..., str]
"""Renders messages with a model's chat template: (messages, add_generation_prompt=…) → text."""


@dataclass(frozen=True)
class Document:
    """One prompt, what may answer it, and when to stop."""

    id: str
    """Unique within the task and split."""
    prompt: str
    references: tuple[str, ...]
    limit: int
    """Most new tokens; 1 where answers are weighed, and nothing is written."""
    stop: tuple[str, ...]
    """Texts that end the output; they are no part of it."""
    index: int
    """Place within the split's rows."""
    difficulty: int | None
    split: Split = "test"
    pairs: tuple[tuple[str, str], ...] = ()
    """Context and continuation of every answer to weigh; empty where the model writes."""
    chance: float = 0.0
    """Score of a blind guess."""
    delimiter: str = " "
    """Stands between the prompt and what answers it."""
    prompt_tokens: int | None = None
    """Most tokens of the prompt, where the task has such a limit."""
    body: tuple[int, int] | None = None
    """The part of the prompt that may lose its end where that is too long; None: the prompt loses its beginning."""
    line: int | None = field(default=None, compare=False)
    """Where it stands in its file, from 1; None where it comes of no file of documents."""
    source: str | None = None
    """Hash of what it was taken from, such as a passage; documents that share one are no independent ones."""
    thinking: Thinking | None = None
    """How the model thinks before it answers; None where all that it writes is the answer."""

    @property
    def named(self) -> str:
        """What a message calls it."""
        return f"document {self.id}" + (f" (line {self.line} of its file)" if self.line is not None else "")

    def check(self) -> None:
        """Check that its texts can be tokenised, and written to a file.

        Raises:
            DlbenchError: one of them holds half of a surrogate pair, which is no text in any encoding.
        """
        contexts = (part for pair in self.pairs for part in pair)
        for what, texts in (("prompt", (self.prompt,)), ("reference", self.references), ("answer", contexts)):
            for text in texts:
                if (fault := no_text(text)) is not None:
                    raise DlbenchError(f"{self.named}: its {what} holds {fault}: mend the data")

    def answer(self, output: str) -> str:
        """What is scored of an output: no thinking, and nothing from the first stop text on."""
        return cut(output if self.thinking is None else self.thinking.answer(output), self.stop)


def no_text(text: str) -> str | None:
    """What a string holds that no encoding has, and where; None where it is a text."""
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
