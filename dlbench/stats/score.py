"""Score intervals: all values of a mean or a ratio that a score test does not reject.

A value θ is held against the sample through g = a − θ·b, whose mean is 0 at the true θ. The test divides the mean of g
by its standard error *under θ*, which is taken from the most likely distribution with that mean: Owen's empirical
likelihood (*Empirical Likelihood*, 2001, chapters 2 and 3), which may also put weight on values that were not seen, up
to the ends of a given support (Honda & Takemura, COLT 2010). So the interval does not shrink to nothing where almost
all documents tie, which is where bootstrap and Wald intervals fail. On binary scores it *is* the known interval: for a
paired difference that of Tango (Statistics in Medicine 17, 1998), for a single share that of Wilson (1927).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtri

from dlbench.stats.resample import FloatArray

Support = Callable[[FloatArray], tuple[FloatArray, FloatArray]]
"""From candidate values [columns] to the least and greatest g that there may be, [columns] each."""

_HALVINGS = 44  # of the search for an end: to 1e-13 of its range
_STEPS = 60


def score_ends(
    a: FloatArray, b: FloatArray, weights: FloatArray, units: FloatArray, support: Support, level: float
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the score interval of mean(a) ÷ mean(b), for many samples at once.

    Args:
        a: [values, columns]; equal values may be given once, with their weight.
        b: like `a`; all ones make it the mean of a.
        weights: how often each value stands in its sample, [values, columns]; columns sum to `units`.
        units: independent units (documents or clusters) in each sample, [columns].
        support: what g may be.
        level: two-sided coverage.

    Returns:
        [columns] each; an end that the data do not bound is infinite.
    """
    reach = float(ndtri((1 + level) / 2))
    share = weights / units
    estimate = (share * a).sum(axis=0) / (share * b).sum(axis=0)

    def inside(value: FloatArray) -> npt_bool:
        mean, variance = _likeliest(a - value * b, share, *support(value))
        return units * mean**2 <= reach**2 * variance + 1e-300

    return _end(estimate, inside, -1), _end(estimate, inside, 1)


npt_bool = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def _end(estimate: FloatArray, inside: Callable[[FloatArray], npt_bool], side: int) -> FloatArray:
    """Find where `inside` ends on one side of the estimate: step out by doubling, then halve."""
    within = estimate.copy()
    stride = np.full_like(estimate, 1e-3) * np.maximum(np.abs(estimate), 1.0)
    beyond = estimate + side * stride
    for _ in range(_STEPS):
        still = inside(beyond)
        if not still.any():
            break
        within = np.where(still, beyond, within)
        stride = np.where(still, stride * 2, stride)
        beyond = np.where(still, estimate + side * stride, beyond)
    for _ in range(_HALVINGS):
        middle = (within + beyond) / 2
        still = inside(middle)
        within, beyond = np.where(still, middle, within), np.where(still, beyond, middle)
    return np.where(stride > 1e12, side * np.inf, within)


def _likeliest(g: FloatArray, share: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean of g and its variance under the most likely distribution on [low, high] whose mean is 0.

    Its weights are share ÷ (1 + λ·g); λ solves Σ share·g ÷ (1 + λ·g) = 0, or stands at the end of its range, and what
    is then missing from the weights' sum lies at an end of the support. The variance is 0 outside the support.
    """
    mean = (share * g).sum(axis=0)
    # Just inside: a value at the very end of the support would get an infinite weight.
    least = np.where(mean < 0, -(1 - 1e-9) / np.maximum(high, 1e-300), 0.0)
    most = np.where(mean > 0, -(1 - 1e-9) / np.minimum(low, -1e-300), 0.0)
    left, right = least.copy(), most.copy()
    tilt = np.where(mean > 0, right, left)
    for _ in range(_STEPS):
        ratio = 1 / (1 + tilt * g)
        slope = share * g * ratio
        value = slope.sum(axis=0)
        slope *= -g * ratio
        left = np.where(value > 0, tilt, left)
        right = np.where(value <= 0, tilt, right)
        with np.errstate(all="ignore"):
            newton = tilt - value / slope.sum(axis=0)
        good = (newton > left) & (newton < right)
        after = np.where(good, newton, (left + right) / 2)
        done = np.abs(after - tilt) <= 1e-10 * np.abs(tilt) + 1e-300
        tilt = after
        if done.all():
            break
    likely = share / (1 + tilt * g)
    missing = np.clip(1 - likely.sum(axis=0), 0.0, None)
    variance = (likely * g**2).sum(axis=0) + missing * np.where(tilt > 0, low, high) ** 2
    return mean, np.where((low < 0) & (high > 0), variance, 0.0)
