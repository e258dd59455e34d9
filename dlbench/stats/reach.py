"""What a method reaches: the compute it needs, the share of the oracle's gap that it closes, the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Unpack

import numpy as np
import numpy.typing as npt

from dlbench.stats.frontier import Point
from dlbench.stats.intervals import (
    LEVEL,
    Bounds,
    Interval,
    contrast,
    metric_range,
    paired_difference,
    paired_rows,
    ratio_interval,
)
from dlbench.stats.resample import Drawing, FloatArray, Resample, as_scores, cluster_codes, seed_noise

DOCUMENTS_FOR_99 = 2_000
"""Least number of documents for a statement about keeping more than 98 %: fewer cannot tell 99 % from all."""


@dataclass(frozen=True, slots=True)
class ComputeAt:
    """The least realised cost that keeps a share of full depth's quality.

    Attributes:
        target: that share.
        cost: None where it is not reached or cannot be determined.
        reason: why the cost is None; empty otherwise.
    """

    target: float
    cost: float | None
    reason: str = ""


def compute_at(
    points: Sequence[Point],
    full: npt.ArrayLike,
    target: float = 0.95,
    *,
    chance: float = 0.0,
    bounds: Bounds | None = None,
    confidence: float = 0.95,
    **drawing: Unpack[Drawing],
) -> ComputeAt:
    """Return the least realised cost down to which a method surely keeps a share of full depth's quality.

    The settings are tested in one fixed sequence, from the most expensive down, as long as the one-sided 95 % bound of
    mean(q − target × full) is at least 0, q and full above chance as in `retained`; the result is the cheapest before
    the first that fails (Maurer, Hothorn & Lehmacher 1995). So a method of which no setting keeps the share is named in
    at most 5 % of the cases, however many settings it has. Taking the cheapest of all that pass would name one far more
    often, as each may pass by luck.

    Args:
        points: the method's settings that ran, in any order; nothing is interpolated. Of several at one cost all have
            to pass.
        full: full depth's scores on the same documents.
        target: share to keep of what full scores above chance; above 0.98 it takes 2,000 documents, or
            sources where they share some.
        chance: the mean score of guessing.
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.
        confidence: of the one-sided bound.
        drawing: how documents are resampled, see `Drawing`.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    base = paired_rows(full)[0]
    codes = cluster_codes(drawing.get("clusters"), base.shape[1])
    units, called = (base.shape[1], "documents") if codes is None else (int(codes.max()) + 1, "sources")
    if target > 0.98 and units < DOCUMENTS_FOR_99:
        return ComputeAt(target, None, f"needs {DOCUMENTS_FOR_99:,} {called}, there are {units:,}")
    if base.mean() <= chance:
        return ComputeAt(target, None, f"full depth scores nothing{' above chance' if chance else ''}")
    test = _ShareTest(base, target, (1 - target) * chance, bounds, confidence, drawing)
    if (cheapest := test.cheapest(points)) is not None:
        return ComputeAt(target, cheapest)
    greatest = max((point.cost for point in points), default=None)
    dearest = [point for point in points if point.cost == greatest]
    # Where full depth's own scores would not pass, a failure says nothing about the method.
    if dearest and all(test.measured(point) for point in dearest) and not test.bounded(base.mean(axis=0)):
        return ComputeAt(target, None, f"too few {called}")
    return ComputeAt(target, None, "not reached")


@dataclass(frozen=True)
class _ShareTest:
    """Tests whether a setting keeps a share of full depth's quality: mean(q − target × full) ≥ `least`."""

    full: FloatArray
    """Full depth's scores, [fit seeds, documents]."""
    target: float
    least: float
    """What is left of guessing: (1 − target) × chance."""
    bounds: Bounds | None
    confidence: float
    drawing: Drawing

    def cheapest(self, points: Sequence[Point]) -> float | None:
        """Return the least cost before the first, from the most expensive down, at which a setting fails."""
        passed = None
        for cost, same in groupby(sorted(points, key=lambda one: -one.cost), key=lambda one: one.cost):
            if not all(self.passes(point) for point in same):
                break
            passed = cost
        return passed

    def passes(self, point: Point) -> bool:
        """Return whether the setting surely keeps the share; the bound is below the estimate, which is cheap."""
        return self.measured(point) and self.bounded(point.scores)

    def measured(self, point: Point) -> bool:
        """Return whether the estimate says so."""
        scores = paired_rows(point.scores, self.full)[0]
        return bool(scores.mean() >= self.target * self.full.mean() + self.least)

    def bounded(self, scores: npt.ArrayLike) -> bool:
        """Return whether the one-sided bound says so."""
        interval = contrast(
            [scores, self.full],
            [1.0, -self.target],
            bounds=self.bounds,
            level=2 * self.confidence - 1,
            **self.drawing,
        )
        return interval.low >= self.least


def gap_closed(
    method: npt.ArrayLike,
    control: npt.ArrayLike,
    oracle: npt.ArrayLike,
    *,
    bounds: Bounds | None = None,
    level: float = LEVEL,
    **drawing: Unpack[Drawing],
) -> Interval | None:
    """Return (method − control) ÷ (oracle − control), the share of the gap that a method closes, with its interval.

    Give all three at one realised cost (`Curve.at`), and where there is one, the oracle that was scored on references
    that it did not choose by: the other is too high, and so enlarges the gap.

    Args:
        method: one score per document, or [fit seeds, documents].
        control: random routing, one score per document; several fit seeds count by their mean.
        oracle: like `control`.
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.
        level: nominal coverage.
        drawing: how documents are resampled, see `Drawing`.

    Returns:
        None where the interval of the denominator holds 0 or lies below it: then there is no gap to close.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    ours, random, best = paired_rows(method, control, oracle)
    floor, ceiling = random.mean(axis=0), best.mean(axis=0)
    gap = paired_difference(ceiling, floor, bounds=bounds, level=level, **drawing)
    if gap.low <= 0:
        return None
    _, low, high = metric_range([ours, random, best], bounds)
    return ratio_interval(
        ours - floor,
        ceiling - floor,
        bounds=((low - floor, high - floor), (low - high, high - low)),
        level=level,
        **drawing,
    )


def pareto_probability(points: Sequence[Point], *, slack: float = 0.0, **drawing: Unpack[Drawing]) -> FloatArray:
    """Return for every point the share of resamples in which it is on the Pareto front, [points].

    A point is on the front if no other dominates it: is as cheap *and* as good, and better in one of the two.
    Documents are resampled with their scores and, where they are known, their costs; fit seeds with them.

    Args:
        points: settings over the same documents.
        slack: how much dearer a better point may be and still count as being as cheap.
        drawing: how documents are resampled, see `Drawing`.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    if not points:
        return np.zeros(0)
    rows = paired_rows(*(point.scores for point in points))
    documents = rows[0].shape[1]
    resample = Resample(documents, **drawing)
    quality = resample.means(np.stack([row.mean(axis=0) for row in rows]))  # [points, resamples]
    for number, row in enumerate(rows):
        if len(row) > 1:
            quality[number] += seed_noise(row.mean(axis=1), resample.resamples, [resample.seed, number])
    cost = np.repeat(as_scores([point.cost for point in points])[:, None], resample.resamples, axis=1)
    for number, point in enumerate(points):
        if point.costs is not None:
            spread = as_scores(point.costs)
            cost[number] += resample.means(spread - spread.mean())[0]
    front = np.ones(quality.shape, dtype=np.bool_)
    for number in range(len(points)):
        cheaper, better = cost < cost[number], quality > quality[number]
        no_dearer, no_worse = cost <= cost[number] + slack, quality >= quality[number]
        front[number] = ~((cheaper & no_worse) | (no_dearer & better)).any(axis=0)
    return np.asarray(front.mean(axis=1), dtype=np.float64)
