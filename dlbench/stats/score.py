"""Score intervals: all values of a mean or a ratio that a score test does not reject.

A value θ is tested against the sample through g = a − θ·b, whose mean is 0 at the true θ. The test divides the mean of
g by its standard error *under θ*, which is taken from the most likely distribution with that mean: Owen's empirical
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
"""From candidate values, [columns], to the least and greatest possible g, [columns] each."""

_STEPS = 60  # most steps of any search; ten are usually enough
_CLOSE = 1e-9  # tolerance of the test statistic at an end, relative to its quantile


@np.errstate(over="ignore")  # a value far beyond the support, whose term is then 0 as it should be
def score_ends(
    a: FloatArray, b: FloatArray, weights: FloatArray, units: FloatArray, support: Support, level: float
) -> tuple[FloatArray, FloatArray]:
    """Return the ends of the score interval of mean(a) ÷ mean(b), for many samples at once.

    Args:
        a: [values, samples]; equal values may be given once, with their weight.
        b: like `a`; with all ones the ratio is the mean of a.
        weights: how often each value occurs in its sample, [values, samples]; they sum to `units`.
        units: independent units (documents or clusters) in each sample, [samples].
        support: least and greatest possible g.
        level: two-sided coverage.

    Returns:
        [samples] each; an end that the data do not bound is infinite.
    """
    reach = float(ndtri((1 + level) / 2))
    share = weights / units
    bottom = (share * b).sum(axis=0)
    estimate = (share * a).sum(axis=0) / bottom
    error = np.sqrt((share * (a - estimate * b) ** 2).sum(axis=0) / units) / np.abs(bottom)
    low, high = support(estimate)
    # A quarter of the distance to the ends where all documents tie, so that the first step stays inside.
    quarter = reach**2 / (units + reach**2) / 4
    rounding = 1e-12 * np.maximum(np.maximum(np.abs(low), np.abs(high)), np.abs(estimate)) + 1e-150
    least = {-1: np.abs(low) * quarter + rounding, 1: np.abs(high) * quarter + rounding}
    ends = []
    for side in (-1, 1):
        tilt = np.zeros_like(estimate)

        def excess(value: FloatArray, tilt: FloatArray = tilt) -> FloatArray:
            """Return the test statistic's excess over its quantile, in units of g; `tilt` is kept between calls."""
            mean, variance = _likeliest(a - value * b, share, *support(value), tilt)
            return np.sqrt(units) * np.abs(mean) - reach * np.sqrt(variance)

        quantile = reach * np.sqrt(units) * error * np.abs(bottom)
        ends.append(_end(estimate, side * (reach * error + least[side]), excess, -quantile))
    return ends[0], ends[1]


def _end(
    estimate: FloatArray, stride: FloatArray, excess: Callable[[FloatArray], FloatArray], low: FloatArray
) -> FloatArray:
    """Find where the excess, `low` at the estimate, becomes positive: by doubling steps, then the Illinois rule."""
    within, beyond = estimate.copy(), estimate + stride
    high = excess(beyond)
    close = _CLOSE * np.maximum(-low, 1e-6)
    for _ in range(_STEPS):
        still = high <= 0
        if not still.any():
            break
        within, low = np.where(still, beyond, within), np.where(still, high, low)
        stride = np.where(still, stride * 2, stride)
        beyond = np.where(still, estimate + stride, beyond)
        high = np.where(still, excess(beyond), high)
    bounded = high > 0
    end = beyond
    before = np.zeros(len(estimate), dtype=np.int8)
    for _ in range(_STEPS):
        with np.errstate(all="ignore"):
            end = within - low * (beyond - within) / (high - low)
        end = np.where(np.isfinite(end), end, (within + beyond) / 2)
        value = excess(end)
        if (~bounded | (np.abs(value) <= close)).all():
            break
        inside = value <= 0
        # The value of an end that was kept twice is halved, or the other end would converge slowly.
        high = np.where(inside, np.where(before == 1, high / 2, high), value)
        low = np.where(inside, value, np.where(before == -1, low / 2, low))
        within, beyond = np.where(inside, end, within), np.where(inside, beyond, end)
        before = np.where(inside, 1, -1).astype(np.int8)
    return np.where(bounded, end, np.sign(stride) * np.inf)


def _likeliest(
    g: FloatArray, share: FloatArray, low: FloatArray, high: FloatArray, tilt: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the mean of g and its variance under the most likely distribution on [low, high] whose mean is 0.

    Its weights are share ÷ (1 + λ·g); λ solves Σ share·g ÷ (1 + λ·g) = 0, or stands at the end of its range, and what
    is then missing from the weights' sum lies at an end of the support. The variance is 0 outside the support.

    Args:
        g: [values, samples].
        share: of each value in its sample; samples sum to 1.
        low: least possible g, [samples].
        high: greatest possible g, [samples].
        tilt: λ to start from, [samples]; overwritten with the λ that was found.
    """
    mean = (share * g).sum(axis=0)
    # Just inside, since a value at the very end of the support would get an infinite weight.
    left = np.where(mean < 0, -(1 - 1e-9) / np.maximum(high, 1e-300), 0.0)
    right = np.where(mean > 0, -(1 - 1e-9) / np.minimum(low, -1e-300), 0.0)
    end = np.where(mean > 0, right, left)
    # The sum falls in λ; where it still has the mean's sign at the end of the range, λ is that end.
    past = (share * g / (1 + end * g)).sum(axis=0) * mean >= 0
    left, right = np.where(past, end, left), np.where(past, end, right)
    new = np.clip(tilt, left, right)
    for _ in range(_STEPS):
        ratio = g / (1 + new * g)
        slope = share * ratio
        value = slope.sum(axis=0)
        slope *= ratio
        left = np.where(value > 0, np.maximum(new, left), left)
        right = np.where(value <= 0, np.minimum(new, right), right)
        with np.errstate(all="ignore"):
            newton = new + value / slope.sum(axis=0)
        inside = (newton > left) & (newton < right)
        # A step of length 0 has converged where the terms cancel, but not beside a pole of the sum.
        still = np.flatnonzero(newton == new)
        inside[still] = np.abs(value[still]) <= 1e-6 * np.abs(share[:, still] * ratio[:, still]).sum(axis=0)
        old = new
        # A step that leaves the bracket is replaced by bisection.
        new = np.where(inside, newton, (left + right) / 2)
        if (np.abs(new - old) <= 1e-11 * np.abs(old) + 1e-300).all():
            break
    tilt[:] = new
    likely = share / (1 + new * g)
    missing = np.clip(1 - likely.sum(axis=0), 0.0, None)
    variance = (likely * g**2).sum(axis=0) + missing * np.where(new > 0, low, high) ** 2
    return mean, np.where((low < 0) & (high > 0), variance, 0.0)
