"""What the engine takes and returns: texts to continue, and answers to score."""

from __future__ import annotations

from dataclasses import dataclass, field

from dlbench.data.thinking import Thinking
from dlbench.engine.flops.costs import CATEGORIES

NEAR_TIE = {"float16": 0.03, "bfloat16": 0.25}
"""Margins of logits and scores below which rounding may decide, by dtype; 1e-3 for dtypes not listed."""


def near_tie_below(dtype: str) -> float:
    """The margin below which an argmax or a threshold in a dtype is noted as a near tie."""
    return NEAR_TIE.get(dtype, 1e-3)


@dataclass(frozen=True)
class Request:
    """One prompt to continue."""

    id: str
    """Key of the noise: the same document gets the same noise in every batch."""
    ids: tuple[int, ...]
    limit: int
    """Most new tokens."""
    stop: tuple[str, ...] = ()
    """Texts that end the continuation; the tokens that complete such a text are counted."""
    thinking: Thinking | None = None
    """Set if the model thinks before it answers: stop texts then apply to the answer only."""


@dataclass
class Generation:
    """The continuation of one request, and what it cost."""

    tokens: list[int]
    """New tokens, the end token included."""
    layers: list[float]
    """Executed layers per decode forward, len(tokens) - 1 entries; a sub-layer counts by its share of the FLOPs."""
    routes: list[tuple[bytes, int]]
    """Runs of equal decode forwards: one Action per layer, as bytes, and how many forwards in a row took them."""
    flops: dict[str, int]
    """Credited FLOPs of decoding, by category."""
    executed: int
    """Executed FLOPs of decoding, padding included."""
    prompt_flops: int
    """Credited FLOPs of the prompt, and of reading the text again if it was."""
    prompt_executed: int
    """Executed FLOPs of the same; a prefix that the wave's prompts share is read once, and divided among them."""
    acted: bool
    """Whether any token of the wave skipped a layer or exited in this run."""
    speculation: tuple[int, int, int] | None = None
    """Tokens drafted, drafts accepted, rounds of verification; None without speculative decoding."""
    near_ties: list[tuple[int, float]] = field(default_factory=list)
    """Near ties, where an argmax or threshold had a margin below `near_tie_below`: (index of the token, margin)."""
    reread: bool = False
    """Whether the text was read again when its rotary angles changed."""


@dataclass(frozen=True)
class Question:
    """A document whose answers are scored."""

    id: str
    """Key of the noise: the same layers score all answers of a document."""
    answers: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    """Context and continuation of each answer, as token ids."""


@dataclass
class Verdict:
    """The scores of one question's answers, and what they cost."""

    answers: list[tuple[float, bool]]
    """Log-likelihood of each continuation, and whether greedy decoding would produce it."""
    tokens: int = 0
    """Tokens that ran, padding excluded."""
    layers: list[float] = field(default_factory=list)
    """Executed layers of each row."""
    routes: list[tuple[bytes, int]] = field(default_factory=list)
    """Runs of equal rows: one Action per layer, as bytes, and how many rows in a row took them."""
    flops: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0))
    """Credited FLOPs, by category."""
    executed: int = 0
    """Executed FLOPs, padding included."""
