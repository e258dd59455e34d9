"""Timing side by side: contenders take turns, so that whatever disturbs the machine disturbs all of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

_Result = TypeVar("_Result")
Now = Callable[[], float]
LEAST = 3
"""Least number of rounds of a race, however slow the machine."""


class Stopwatch:
    """Times work in seconds, waiting for the device before and after."""

    def __init__(self, device: torch.device, now: Now = time.perf_counter) -> None:
        self.device, self._now = device, now

    def now(self) -> float:
        """Return the time in seconds, once the device has finished all work."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        return self._now()

    def of(self, work: Callable[[], _Result]) -> tuple[float, _Result]:
        """Return the seconds that `work` took, and its result."""
        start = self.now()
        result = work()
        return self.now() - start, result


@dataclass(frozen=True)
class Repeats:
    """Repeats of one measurement, summarised by median and quartiles."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.values))

    @property
    def low(self) -> float:
        """First quartile."""
        return float(np.percentile(self.values, 25))

    @property
    def high(self) -> float:
        """Third quartile."""
        return float(np.percentile(self.values, 75))


@dataclass(frozen=True)
class Times:
    """What each contender took, round by round."""

    warmups: dict[str, float]
    """Seconds of each contender's warm-up, which is in no other figure."""
    rounds: dict[str, tuple[float, ...]]

    def quotients(self, slow: str, fast: str) -> tuple[float, ...]:
        """Return the time of `slow` ÷ that of `fast`, for each round."""
        return tuple(s / f for s, f in zip(self.rounds[slow], self.rounds[fast], strict=True))


def race(
    contenders: Mapping[str, Callable[[], float]],
    rounds: int,
    *,
    warm: Mapping[str, Callable[[], object]] | None = None,
    warm_ups: int = 1,
    patience: float = math.inf,
    now: Now = time.perf_counter,
) -> Times:
    """Run every contender to warm up and then once per round; each round begins with the next contender.

    Args:
        contenders: each runs once and returns its own measure, such as milliseconds per step.
        rounds: most measurements of each.
        warm: what a contender runs to warm up, where its own work is long.
        warm_ups: number of warm-up runs.
        patience: seconds after which no further round begins, once there are LEAST.
        now: a clock in seconds, for the warm-up and the patience.
    """
    names, warm = list(contenders), warm or {}
    warmups: dict[str, float] = {}
    for name in names:
        start = now()
        for _ in range(warm_ups):
            warm.get(name, contenders[name])()
        warmups[name] = now() - start
    measured: dict[str, list[float]] = {name: [] for name in names}
    begun = now()
    for turn in range(rounds):
        if turn >= LEAST and now() - begun > patience:
            break
        for name in turned(names, turn):
            measured[name].append(contenders[name]())
    return Times(warmups, {name: tuple(values) for name, values in measured.items()})


def turned(names: Sequence[str], turn: int) -> list[str]:
    """Return the names in the order of one round."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]
