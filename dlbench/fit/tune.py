"""Tune a knob to a budget: start from the open-loop curve, correct by the share that free-running texts realise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dlbench.fit.open_loop import record, shares
from dlbench.fit.probe import FitProbe
from dlbench.method import Knob, Method, Router

CLOSE = 0.005
"""Distance to the budget at which tuning stops."""
RUNS = 4
"""Most free-running corrections."""
POINTS, ROUNDS = 9, 4
"""Values per grid of the open-loop curve, and grids, each finer than the one before."""


def tune(probe: FitProbe, method: Method, budget: float) -> float:
    """Set the method's knob; returns the layer share realised on the tune part.

    Raises:
        DlbenchError: no document of the tune part fits the context.
    """
    knob = method.knob
    assert knob is not None

    def free(value: float) -> float:
        setattr(method, knob.name, value)
        return probe.realised(method)

    # the texts of a trace form no batch, and their states are not those of the method's future
    references = probe.references
    trace = None if method.batch_dependent or method.uses_future else record(references)
    if trace is None:
        return _settle(knob, method, free, budget, (knob.low + knob.high) / 2, RUNS * 2)
    reads = sorted(method.reads(probe.depth))
    begins = reads or (type(method).begin is not Method.begin and not isinstance(method, Router))
    prompt = probe.prompts(reads, "tune") if begins else None

    def curve(values: Sequence[float]) -> list[float]:
        return shares(references, method, trace, values, prompt)

    return _settle(knob, method, free, budget, _invert(knob, curve, budget), RUNS, curve)


def _invert(knob: Knob, curve: Callable[[Sequence[float]], list[float]], target: float) -> float:
    """Value of the knob whose open-loop share is nearest to the target, by successively finer grids."""
    low, high = knob.low, knob.high
    best: tuple[float, float] = (np.inf, low)
    for _ in range(ROUNDS):
        values = np.linspace(low, high, POINTS)
        realised = curve(values.tolist())
        best = min([best, *((abs(s - target), v) for s, v in zip(realised, values.tolist(), strict=True))])
        above = [i for i, s in enumerate(realised) if s >= target]
        upper = above[0] if above else POINTS - 1
        low, high = float(values[max(upper - 1, 0)]), float(values[upper])
        if low == high:
            break
    return best[1]


def _settle(
    knob: Knob,
    method: Method,
    free: Callable[[float], float],
    budget: float,
    start: float,
    runs: int,
    curve: Callable[[Sequence[float]], list[float]] | None = None,
) -> float:
    """Correct a first value by the shares of free-running texts, and set the best.

    Args:
        knob: what is set.
        method: has the knob.
        free: free-running layer share at a value of the knob.
        budget: target layer share.
        start: first value.
        runs: most calls of `free`.
        curve: open-loop shares of several values; None: bisect instead.
    """
    low, high = (knob.low, -np.inf), (knob.high, np.inf)  # (value, share) below and above the budget
    value, aim, best = start, budget, (np.inf, start, 0.0)
    for _ in range(runs):
        share = free(value)
        best = min(best, (abs(share - budget), value, share))
        if abs(share - budget) <= CLOSE:
            break
        if share < budget:
            low = (value, share)
        else:
            high = (value, share)
        aim += budget - share
        value = _invert(knob, curve, aim) if curve is not None else (low[0] + high[0]) / 2
        inside = min(low[0], high[0]) < value < max(low[0], high[0])
        if not inside:  # the curve suggests nothing new: bisect
            value = (low[0] + high[0]) / 2
    setattr(method, knob.name, best[1])
    return best[2]
