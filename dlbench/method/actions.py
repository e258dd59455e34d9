"""Types that methods use: actions, routes, knobs, prompt states, and parameters as JSON values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Literal, Protocol, Self, final

from torch import Tensor

Scope = Literal["static", "sequence", "token"]
"""How often a decision may change: never, per sequence, or per token."""


class Action(IntFlag):
    """What one token does at one layer."""

    SKIP = 0
    ATTN = 1
    """The attention half of the layer only; it counts by its share of the layer's FLOPs."""
    MLP = 2
    """The feed-forward half only; like SKIP it computes no keys and values."""
    RUN = ATTN | MLP
    EXIT = 4
    """Run neither this layer nor any later one; never combined with another flag."""


@dataclass(frozen=True)
class Route:
    """Actions with more than codes: a scale on what is added to the state, or new memory."""

    codes: Action | Tensor
    """One action for all tokens of the view, or one code per token: [n], bool or integer."""
    scale: Tensor | None = None
    """Factor on what is added to the state, [n]: on the output of the layer or half that a token runs, on the output
    of `Method.bypass` where it skips the layer."""
    memory: Tensor | None = None
    """New memory of the tokens' sequences: [n, m]; None keeps the old one."""


@dataclass(frozen=True)
class Knob:
    """The one parameter that trades compute for quality."""

    name: str
    low: float
    """Value at the smallest layer share."""
    high: float
    """Value at the largest. The share rises monotonically from `low` to `high`; `low` may be the greater number."""


class Prompt(Protocol):
    """Input of `Method.begin`: states of n prompts that were read at full depth."""

    @property
    def depth(self) -> int:
        """Layers of the backbone."""
        ...

    @property
    def count(self) -> int:
        """Number of prompts, n."""
        ...

    def last(self, layer: int) -> Tensor:
        """State of each prompt's last token before a layer named by `Method.reads`: [n, width]."""
        ...

    def mean(self, layer: int) -> Tensor:
        """Mean state of each prompt's tokens before such a layer: [n, width]."""
        ...

    def normed_mean(self, layer: int) -> Tensor:
        """Mean over tokens of the states, each first scaled to a mean square of 1: [n, width].

        In many models the state of the first token is a thousand times as large as the others and dominates `mean`.
        """
        ...


class Parameters:
    """Base of methods and oracles: dataclass fields are the parameters, converted to and from JSON values."""

    @final
    def params(self) -> dict[str, Any]:
        """Parameters as JSON values."""
        return {
            f.name: list(v) if isinstance(v := getattr(self, f.name), (tuple, frozenset)) else v
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if f.init
        }

    @classmethod
    @final
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Build from JSON values; lists become tuples.

        Raises:
            ValueError: an unknown parameter, or a value that the method rejects.
        """
        known = {f.name for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
        if unknown := sorted(set(params) - known):
            raise ValueError(f"no parameter {unknown[0]!r}; there is {', '.join(sorted(known)) or 'none'}")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in params.items()})
