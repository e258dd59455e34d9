"""What the engine is asked for, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from dlbench.data.thinking import Thinking


@dataclass(frozen=True)
class Request:
    """One prompt to continue."""

    id: str
    """Keys the noise: the same document gets the same noise in every batch."""
    ids: tuple[int, ...]
    limit: int
    """Most new tokens."""
    stop: tuple[str, ...] = ()
    """Texts that end the continuation; the tokens that complete one are counted."""
    thinking: Thinking | None = None
    """Where the model thinks first: stop texts act in the answer only."""


@dataclass
class Generation:
    """What was written for one request, and what it cost."""

    tokens: list[int]
    """New tokens, the end token included."""
    layers: list[float]
    """Executed layers per decode forward: len(tokens) - 1 entries; half a layer counts by its share of the FLOPs."""
    routes: list[tuple[bytes, int]]
    """What each decoded token did, one Action per layer, and how many forwards in a row did the same."""
    flops: dict[str, int]
    """Credited FLOPs of decoding, by category."""
    executed: int
    """Executed FLOPs of decoding, padding included."""
    prompt_flops: int
    """Credited FLOPs of reading: the prompt, and the text again where that was."""
    prompt_executed: int
    acted: bool
    """Whether any token of this run's wave skipped or exited."""
    speculation: tuple[int, int, int] | None = None
    """Tokens drafted, drafts accepted, and rounds of verification; None where nothing was drafted."""
    near_ties: list[tuple[int, float]] = field(default_factory=list)
    """Steps whose argmax or threshold was decided by less than the dtype's rounding: (index of the token, margin)."""
    reread: bool = False
    """Whether the text was read again where its rotary angles changed."""
