"""What a method may use while it is fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from dlbench.method.base import Action, Method, Prompt
from dlbench.method.router import Router
from dlbench.method.static import Static

Part = Literal["learn", "tune"]
"""Documents to learn from, and those that thresholds are set on: 70 and 30 per cent of the fit split."""


@dataclass(frozen=True)
class Written:
    """What a method wrote for one document of the fit split, by itself."""

    id: str
    text: str
    score: float
    """The task's primary metric against the references."""
    share: float
    """Executed layers over depth, per decode forward."""


@dataclass(frozen=True)
class Text:
    """Decode forwards of references under teacher forcing at full depth, n tokens of several documents."""

    states: tuple[Tensor, ...]
    """State before each layer, and after the last: depth + 1 times [n, width]."""
    logits: Callable[[int], Tensor]
    """The exit head on the state before a layer, `depth` for the full stack: [n, vocabulary]."""


class Probe(Protocol):
    """The fit split of one task on one frozen backbone. What is used here is told apart from inference."""

    @property
    def depth(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def budget(self) -> float | None:
        """The layer share to learn for, where what is learnt depends on it (`Method.fits_budget`)."""
        ...

    def ids(self, part: Part) -> Sequence[str]:
        """The documents of a part, in order."""
        ...

    def texts(self, part: Part = "learn") -> Iterator[Text]:
        """States and exit logits of the references' tokens, some documents at a time."""
        ...

    def similarity(self, part: Action) -> list[float]:
        """Mean cosine of what enters and what leaves each layer, or a half of it, residual included: [depth].

        Over all tokens of prompts and references to learn from, at full depth.
        """
        ...

    def cost(self, layer: int, part: Action) -> float:
        """Share of a layer's FLOPs that a half of it takes."""
        ...

    def nll(self, method: Static, texts: int | None = None) -> float:
        """Mean negative log-likelihood, in nats per token, of references to learn from, under a plan.

        As decoding does: where prompts run at full depth, so does what predicts a reference's first token, which does
        not count. Where they are routed, all tokens are under the plan, and all of a reference's count.

        Args:
            method: the plan.
            texts: how many, the first ones; None for all.
        """
        ...

    def prompts(self, layers: Sequence[int], part: Part = "learn") -> Prompt:
        """The prompts' states before some layers, in the order of `ids`."""
        ...

    def run(self, method: Method | None, part: Part = "tune") -> list[Written]:
        """Let a method write, greedily and by itself, in the order of `ids`; None for full depth."""
        ...

    def likeness(self, text: str, other: str) -> float:
        """ROUGE-L of two texts, in [0, 1]."""
        ...

    def train(
        self,
        router: Router,
        *,
        steps: int,
        lr: float,
        weight: float,
        cost: Literal["squared", "absolute", "linear"] = "squared",
        share: float = 0.5,
        noise: bool = True,
        rises: bool = False,
    ) -> list[float]:
        """Train a router through the frozen backbone under teacher forcing; returns the loss per step.

        The loss is the cross entropy of the references plus `weight` times a cost:

            squared    (mean executed layer share of all tokens - share)²
            absolute   mean over tokens of |executed layer share of the token - share|, those that are spared left out
            linear     mean share of open gates

        Args:
            router: its `module()` is trained in place.
            steps: optimiser steps.
            lr: AdamW learning rate, falling to 0.
            weight: of the cost.
            cost: its kind.
            share: target layer share of the decoded tokens.
            noise: whether gates are sampled (Gumbel, straight-through) or cut at the threshold (straight-through).
            rises: whether the weight rises from 0 on, as weight · sin(π/2 · step / steps).
        """
        ...

    def say(self, done: int, steps: int) -> None:
        """Show progress."""
        ...
