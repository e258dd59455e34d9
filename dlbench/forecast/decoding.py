"""Foretell what decoding costs: seconds of a step by its rows, and steps of a wave by the lengths of its texts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from dlbench.engine import Engine, Request, Wave
from dlbench.forecast.speed import Clock, timed
from dlbench.method import Method

ROWS, TOKENS = 16, 16
"""Rows and new tokens that a step is timed on; and one row alone."""


@dataclass(frozen=True)
class StepCost:
    """Seconds of a decode step: those that it takes for however few rows, and those that each row adds."""

    fixed: float
    row: float

    def step(self, rows: float) -> float:
        """Seconds of a step of so many rows."""
        return self.fixed + rows * self.row

    def scaled(self, share: float) -> StepCost:
        """The cost with another share of the layers, as a multiple of this one's."""
        return StepCost(self.fixed * share, self.row * share)


T = TypeVar("T")


def between(by_share: Mapping[float, T], share: float, value: Callable[[T], float]) -> float:
    """A value at a share of the layers, between those of the shares that were measured."""
    shares = sorted(by_share)
    return float(np.interp(share, shares, [value(by_share[one]) for one in shares]))


@dataclass(frozen=True)
class StepCosts:
    """Costs of a method's steps, by the share of the layers that it runs."""

    by_share: Mapping[float, StepCost]

    def at(self, share: float) -> StepCost:
        """The cost at a share, between those that were measured."""
        fixed = between(self.by_share, share, lambda one: one.fixed)
        return StepCost(fixed, between(self.by_share, share, lambda one: one.row))


@dataclass(frozen=True)
class Lengths:
    """New tokens of texts: their mean, and those of the longest."""

    mean: float
    longest: float


def wave_seconds(cost: StepCost, lengths: Lengths, rows: int, slots: int) -> float:
    """Seconds of decoding a wave: it lasts until its longest text ends, or its slots have written all.

    Args:
        cost: of a step.
        lengths: of the texts.
        rows: of the wave.
        slots: most rows decoded together.
    """
    if not rows:
        return 0.0
    tokens = rows * lengths.mean
    steps = max(lengths.longest if rows > 1 else lengths.mean, tokens / slots)
    return steps * cost.fixed + tokens * cost.row


class StepTimer:
    """Times a few decode steps of one backbone under any number of methods."""

    def __init__(
        self, engine: Engine, requests: Sequence[Request], reads: Collection[int], clock: Clock, *, routed: bool
    ) -> None:
        """Read the prompts.

        Args:
            engine: of the backbone.
            requests: prompts as the run decodes them; up to `ROWS` are taken.
            reads: layers before which any of the methods reads the prompts' states.
            clock: that steps are timed by.
            routed: whether prompts run the method's layers only.
        """
        self._engine, self._reads, self._clock, self._routed = engine, reads, clock, routed
        self._device = engine.backbone.device
        self._requests = [replace(one, limit=min(one.limit, TOKENS), stop=()) for one in requests[:ROWS]]
        waves: list[Wave] = []
        engine.prefill(self._requests[:1]).decode()  # the first forward prepares more than later ones
        seconds = timed(lambda: waves.append(self._prefill(self._requests, None, 0)), self._device, clock)
        self.prompt_token = seconds / engine.tokens_read(self._requests)
        """Seconds of reading a token of a prompt; what prompts share is read once."""
        self._waves = [self._prefill(self._requests[:1], None, 0), *waves]

    def _prefill(self, requests: Sequence[Request], method: Method | None, seed: int) -> Wave:
        return self._engine.prefill(requests, method, seed, reads=() if method else self._reads)

    def of(self, method: Method | None, seed: int = 0, kv: str | None = None) -> tuple[StepCost, float]:
        """Time a method.

        Args:
            method: None for full depth.
            seed: of its random decisions.
            kv: policy for the keys and values of skipped tokens.

        Returns:
            What a step costs, and the mean share of the layers that ran.
        """
        few, waves = len(self._requests), self._waves
        if self._routed and method is not None:
            waves = [self._prefill(self._requests[:rows], method, seed) for rows in (1, few)]
        seconds, ran = [], []
        for wave in waves:
            for _ in range(self._engine.warm_ups):
                wave.decode(method, seed=seed, kv=kv)
            start = self._clock()
            texts = wave.decode(method, seed=seed, kv=kv)  # its tokens are on the CPU when it returns
            steps = max(len(text.tokens) for text in texts) - 1
            seconds.append((self._clock() - start) / max(1, steps))
            ran += [layers for text in texts for layers in text.layers]
        one, many = seconds
        row = max((many - one) / (few - 1), 0.0) if few > 1 else 0.0
        share = float(np.mean(ran)) / self._engine.backbone.depth if ran else 1.0
        return StepCost(max(one - row, 0.1 * one), row), share
