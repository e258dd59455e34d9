"""Pointwise bands of a curve: the interval, at each cost, of its mean score or of what it retains of full depth's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dlbench.stats.bounds import Samples, mean_bounds
from dlbench.stats.ratio_bounds import ratio_bounds
from dlbench.stats.resample import FloatArray, Resample

Limits = tuple[float, float]
"""Least and greatest possible score."""


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A curve with its pointwise interval, on a grid of costs; arrays are [grid]."""

    cost: FloatArray
    estimate: FloatArray
    low: FloatArray
    high: FloatArray


EMPTY = Band(*(np.zeros(0) for _ in range(4)))


@dataclass(frozen=True, slots=True, eq=False)
class OnGrid:
    """The scores of a curve on a grid of costs.

    Attributes:
        costs: [grid].
        values: [grid, documents].
        seeds: half width of the mean's interval over fit seeds, [grid].
    """

    costs: FloatArray
    values: FloatArray
    seeds: FloatArray


def score_band(curve: OnGrid, limits: Limits, resample: Resample, level: float) -> Band:
    """Return the band of mean scores.

    Args:
        curve: its scores.
        limits: least and greatest possible score.
        resample: over the documents.
        level: nominal coverage, at each cost.
    """
    values = curve.values
    samples = Samples(
        values=values,
        low=np.minimum(limits[0], values.min(axis=1)),
        high=np.maximum(limits[1], values.max(axis=1)),
        binary=np.asarray(np.isin(values, limits).all(axis=1)),
        codes=resample.codes,
    )
    low, high, _ = mean_bounds(samples, lambda some: resample.means(values[some]), level)
    estimate = values.mean(axis=1)
    low, high = _widened(estimate, low, high, curve.seeds)
    return Band(curve.costs, estimate, np.maximum(low, samples.low), np.minimum(high, samples.high))


def retained_band(
    curve: OnGrid,
    full: FloatArray,
    chance: float,
    limits: Limits,
    resample: Resample,
    level: float,
    *,
    full_cost: float | None,
) -> Band:
    """Return the band of what is retained of full depth's score; empty where that is not defined.

    Args:
        curve: its scores.
        full: full depth's scores, [documents].
        chance: the mean score of guessing, subtracted from both.
        limits: least and greatest possible score.
        resample: over the documents.
        level: nominal coverage, at each cost.
        full_cost: cost of full depth where the curve is full depth itself: there it retains exactly 1.
    """
    bottom, span = full - chance, (limits[0] - chance, limits[1] - chance)
    # Full depth may have a score that no setting of the curve has, and what was seen is possible.
    bottom_span = (min(span[0], float(bottom.min())), max(span[1], float(bottom.max())))
    ends = ratio_bounds(curve.values - chance, bottom, (span, bottom_span), resample, level)
    if ends is None:
        return EMPTY
    scale = float(bottom.mean())
    estimate = (curve.values.mean(axis=1) - chance) / scale
    is_full = curve.costs == full_cost
    low, high = np.where(is_full, 1.0, ends[0]), np.where(is_full, 1.0, ends[1])
    low, high = _widened(estimate, low, high, curve.seeds / scale)
    return Band(curve.costs, estimate, np.maximum(low, 0.0) if limits[0] >= chance else low, high)


def _widened(
    estimate: FloatArray, low: FloatArray, high: FloatArray, seeds: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Widen bounds by the spread over fit seeds: square and add."""
    return estimate - np.hypot(estimate - low, seeds), estimate + np.hypot(high - estimate, seeds)
