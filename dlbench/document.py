"""One document of a task, and the texts around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

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


def cut(output: str, stop: Sequence[str]) -> str:
    """The output up to the first text that ends it."""
    places = [place for text in stop if (place := output.find(text)) >= 0]
    return output[: min(places)] if places else output
