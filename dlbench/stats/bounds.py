"""Bounds for the means of many samples at once, and which interval is used where.

- Scores of 0 and 1 only (binary metrics): the score interval, which is Tango's for a paired difference and Wilson's for
  a single mean.
- Real-valued scores whose deviations from the median have an effective mass below `DENSE`: the empirical-likelihood
  score interval, in which no document deviates by more than the largest deviation that was seen.
- Otherwise: the paired bootstrap, bias-corrected and accelerated (BCa; Efron, JASA 82, 1987).

Both intervals for real-valued scores are widened to allow for documents that were not sampled: a share of
z² ÷ (n + z²) of all documents may deviate more than the largest deviation seen, up to the metric's range (see
`dlbench.stats.unseen`). Without that, scores that all differ slightly would have a far narrower interval than scores
that all tie, and it would miss the truth whenever a rare collapse is not in the sample.

Where documents share sources, the units are sources. A source that was not seen deviates less than a single document
may, in the proportion in which the sources that were seen do: a mean of fifty little related documents varies less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from dlbench.stats.resample import FloatArray, cluster_totals
from dlbench.stats.score import score_ends
from dlbench.stats.unseen import effective_mass, level_of, unit_deviations, unit_room, unseen_distance

DENSE = 100
"""Least effective mass of the deviations at which the bootstrap is used for real-valued scores."""
SCORE = "empirical-likelihood score"
BCA = "bootstrap BCa"
_FEW_VALUES = 16
CELLS = 1 << 17  # samples × documents handled at once: 1 MiB per array, which fits the CPU's cache

Draws = Callable[[npt.NDArray[np.intp]], FloatArray]
"""From the numbers of samples to their resampled means, [chosen samples, resamples]."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Several samples over the same documents, whose means are estimated.

    Attributes:
        values: [samples, documents].
        low: least possible value of a document, [samples]; `high`, the greatest.
        binary: whether the values are made of scores of 0 and 1 only, [samples].
        codes: the cluster of each document, None where each is its own.
    """

    values: FloatArray
    low: FloatArray
    high: FloatArray
    binary: npt.NDArray[np.bool_]
    codes: npt.NDArray[np.intp] | None


def mean_bounds(samples: Samples, draws: Draws, level: float) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return the bounds of every sample's mean, and which of them are score intervals."""
    count, documents = samples.values.shape
    low, high, score = np.empty(count), np.empty(count), np.empty(count, dtype=np.bool_)
    inner = level_of(samples.codes, level)
    step = max(64, CELLS // documents)
    for start in range(0, count, step):
        part = slice(start, start + step)
        some = Samples(samples.values[part], samples.low[part], samples.high[part], samples.binary[part], samples.codes)

        def drawn(chosen: npt.NDArray[np.intp], first: int = start) -> FloatArray:
            return draws(chosen + first)

        low[part], high[part], score[part] = _some_bounds(some, drawn, inner)
        below, above = unseen_reach(some, level)
        estimate = some.values.mean(axis=1)
        low[part], high[part] = np.minimum(low[part], estimate - below), np.maximum(high[part], estimate + above)
    return low, high, score


def _some_bounds(samples: Samples, draws: Draws, level: float) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return what `mean_bounds` does, without the unseen, for as many samples as are handled at once."""
    estimate = samples.values.mean(axis=1)
    centre = np.median(samples.values, axis=1)  # where most documents tie, their common value
    off = samples.values - centre[:, None]
    units, _ = unit_deviations(off, samples.codes)
    score = samples.binary | (effective_mass(units) < DENSE)
    low, high = np.empty(len(off)), np.empty(len(off))
    chosen = np.flatnonzero(score)
    if chosen.size:
        low[chosen], high[chosen] = _score_bounds(off[chosen], centre[chosen], samples, chosen, level)
    for start in range(0, len(off), 64):
        dense = np.flatnonzero(~score[start : start + 64]) + start
        if dense.size:
            influence = off[dense] - off[dense].mean(axis=1, keepdims=True)
            if samples.codes is not None:
                influence = cluster_totals(influence, samples.codes)
            low[dense], high[dense] = bca_bounds(estimate[dense], draws(dense), influence, level)
    return low, high, score


def unseen_reach(samples: Samples, level: float) -> tuple[FloatArray, FloatArray]:
    """Return how far documents that were not seen may move the mean down and up, [samples] each.

    0 for binary scores and where all documents tie: their score intervals already reach as far as the metric does.
    """
    centre = np.median(samples.values, axis=1)
    off = samples.values - centre[:, None]
    known = samples.binary | ~off.any(axis=1)
    units, typical = unit_deviations(off, samples.codes)
    usual = centre + typical
    below, above = (unseen_distance(units, off, room, level) for room in (usual - samples.low, samples.high - usual))
    return np.where(known, 0.0, below), np.where(known, 0.0, above)


def _score_bounds(
    off: FloatArray, centre: FloatArray, samples: Samples, chosen: npt.NDArray[np.intp], level: float
) -> tuple[FloatArray, FloatArray]:
    """Score intervals of some samples, from their deviations [chosen, documents]."""
    low, high = samples.low[chosen] - centre, samples.high[chosen] - centre
    seen = np.abs(off).max(axis=1)
    open_ = samples.binary[chosen] | (seen == 0)
    low = np.where(open_, low, np.maximum(low, -seen))
    high = np.where(open_, high, np.minimum(high, seen))
    if samples.codes is None:
        a, weights = _merged(off)
        ends = score_ends(
            a, np.ones_like(a), weights, np.full(len(off), float(off.shape[1])), lambda v: (low - v, high - v), level
        )
        return ends[0] + centre, ends[1] + centre
    sizes = np.bincount(samples.codes) / np.bincount(samples.codes).mean()
    a, b = cluster_totals(off, samples.codes).T / np.bincount(samples.codes).mean(), sizes[:, None]
    units, typical = unit_deviations(off, samples.codes)
    below, above = (unit_room(units, off, room) for room in (typical - low, high - typical))

    def support(value: FloatArray) -> tuple[FloatArray, FloatArray]:
        moved = np.sort([(typical - value) * sizes.min(), (typical - value) * sizes.max()], axis=0)
        return moved[0] - below, moved[1] + above

    b = np.broadcast_to(b, a.shape)
    ends = score_ends(a, b, np.ones_like(a), np.full(len(off), float(len(sizes))), support, level)
    return ends[0] + centre, ends[1] + centre


def _merged(off: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Merge equal values: (values, weights), [values, samples] each."""
    known = np.unique(off)
    if known.size <= _FEW_VALUES:
        weights = np.stack([np.count_nonzero(off == one, axis=1) for one in known]).astype(np.float64)
        return np.repeat(known[:, None], len(off), axis=1), weights
    most = int(np.count_nonzero(off, axis=1).max())
    kept = np.argsort(off == 0, axis=1, kind="stable")[:, :most]
    values = np.take_along_axis(off, kept, axis=1).T  # [most, samples]
    weights = (values != 0).astype(np.float64)
    rest = off.shape[1] - weights.sum(axis=0)
    return np.vstack([values, np.zeros(len(off))]), np.vstack([weights, rest])


def bca_bounds(
    estimate: FloatArray, draws: FloatArray, influence: FloatArray, level: float
) -> tuple[FloatArray, FloatArray]:
    """Return BCa bounds.

    Args:
        estimate: [samples].
        draws: resampled estimates, [samples, resamples].
        influence: what each unit adds to the estimate, up to a factor per sample, [samples, units]; rows sum to 0.
        level: two-sided coverage.
    """
    resamples = draws.shape[1]
    draws = np.sort(draws, axis=1)
    slack = 1e-12 * np.maximum(np.abs(estimate), 1e-300)[:, None]
    below = np.count_nonzero(draws < estimate[:, None] - slack, axis=1)
    tied = np.count_nonzero(draws <= estimate[:, None] + slack, axis=1) - below
    bias = ndtri(np.clip((below + tied / 2) / resamples, 1 / resamples, 1 - 1 / resamples))
    squares = (influence**2).sum(axis=1)
    speed = (influence**3).sum(axis=1) / np.maximum(6 * squares**1.5, 1e-300)
    ends = []
    for reach in (float(ndtri((1 - level) / 2)), float(ndtri((1 + level) / 2))):
        shifted = bias + reach
        place = ndtr(bias + shifted / np.maximum(1 - speed * shifted, 1e-3)) * (resamples - 1)
        left = np.clip(np.floor(place), 0, resamples - 2).astype(np.intp)[:, None]
        pair = np.take_along_axis(draws, np.hstack([left, left + 1]), axis=1)
        ends.append(pair[:, 0] + (place - left[:, 0]) * (pair[:, 1] - pair[:, 0]))
    # Of skewed draws the bounds can miss their own estimate; an interval printed beside it must not.
    return np.minimum(ends[0], estimate), np.maximum(ends[1], estimate)
