"""The intervals of docs/statistics.md written a second time: numpy alone, a row at a time, with draws of their own."""

from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np

DRAWS = 20_000
DENSE = 100  # least effective mass at which BCa is used


@lru_cache(maxsize=1)
def _weights(documents):
    """Draws of documents, other ones than the board's, [draws, documents]."""
    drawn = np.random.default_rng(20_261_130).multinomial(documents, np.full(documents, 1 / documents), size=DRAWS)
    return drawn.astype(np.float64) / documents


def resampled(rows):
    """Return resampled means, [rows, draws]."""
    middle = rows.mean(axis=1, keepdims=True)
    return (rows - middle) @ _weights(rows.shape[1]).T + middle


@dataclass(frozen=True)
class Ends:
    estimate: float
    low: float
    high: float


def quantile(level):
    return NormalDist().inv_cdf(level)


def unseen(documents, level):
    """Return the share of documents that a sample may lack altogether: z² ÷ (n + z²)."""
    square = quantile((1 + level) / 2) ** 2
    return square / (documents + square)


def mass(values):
    """Return (Σ|d|)² ÷ Σd² of the deviations from the median."""
    off = np.abs(values - np.median(values))
    return 0.0 if not off.any() else off.sum() ** 2 / (off**2).sum()


def bca(estimate, draws, influence, level):
    """Return the bounds of Efron's bias-corrected and accelerated bootstrap."""
    normal, few = NormalDist(), 1 / len(draws)
    rounding = 1e-12 * abs(estimate)
    share = ((draws < estimate - rounding).mean() + (draws <= estimate + rounding).mean()) / 2
    bias = normal.inv_cdf(min(max(share, few), 1 - few))
    speed = (influence**3).sum() / (6 * (influence**2).sum() ** 1.5)
    shifted = [bias + side * quantile((1 + level) / 2) for side in (-1, 1)]
    low, high = np.quantile(draws, [normal.cdf(bias + one / (1 - speed * one)) for one in shifted])
    return min(low, estimate), max(high, estimate)


def _rejected(g, low, high, reach):
    """Return whether the score test rejects that the mean of g is 0, g being possible between low and high.

    The variance is that of the likeliest distribution on these values, and one end, with mean 0: weights
    1 ÷ n(1 + λg); what they lack of 1 lies at the end.
    """
    mean = g.mean()
    if not low < 0 < high:
        return True
    ends = (-(1 - 1e-9) / high, 0.0) if mean < 0 else (0.0, -(1 - 1e-9) / low)
    left, right = ends
    for _ in range(60):
        tilt = (left + right) / 2
        if (g / (1 + tilt * g)).sum() > 0:
            left = tilt
        else:
            right = tilt
    weights = 1 / (1 + tilt * g) / len(g)
    missing = max(0.0, 1 - weights.sum())
    variance = (weights * g**2).sum() + missing * (high if mean < 0 else low) ** 2
    return np.sqrt(len(g)) * abs(mean) > reach * np.sqrt(variance)


def score_ends(top, bottom, estimate, support, level):
    """Return the values θ nearest to the estimate at which the score test rejects mean(top − θ · bottom) = 0."""
    reach, ends = quantile((1 + level) / 2), []
    for side in (-1, 1):
        step = 1e-6 * max(abs(estimate), 1e-3)
        while not _rejected(top - (estimate + side * step) * bottom, *support(estimate + side * step), reach):
            step *= 2
        within, beyond = step / 2, step
        for _ in range(40):
            middle = (within + beyond) / 2
            theta = estimate + side * middle
            rejected = _rejected(top - theta * bottom, *support(theta), reach)
            within, beyond = (within, middle) if rejected else (middle, beyond)
        ends.append(estimate + side * within)
    return ends


def of_mean(values, least, greatest, *, binary=False, level=0.95):
    """Return the interval of a mean.

    Args:
        values: differences, say, by document.
        least: the least value that there can be; `greatest` the greatest.
        binary: whether all come of scores of 0 and 1.
        level: coverage.
    """
    estimate, centre = values.mean(), np.median(values)
    seen = np.abs(values - centre).max()
    if binary or mass(values) < DENSE:
        open_ = binary or seen == 0
        ends = (least, greatest) if open_ else (max(least, centre - seen), min(greatest, centre + seen))
        ones = np.ones_like(values)
        low, high = score_ends(values, ones, estimate, lambda mean: (ends[0] - mean, ends[1] - mean), level)
    else:
        low, high = bca(estimate, resampled(values[None])[0], values - estimate, level)
    if not binary and seen:
        far = unseen(len(values), level)
        low = min(low, estimate - far * max(centre - least - seen, 0.0))
        high = max(high, estimate + far * max(greatest - centre - seen, 0.0))
    return Ends(estimate, low, high)


def of_ratio(top, bottom, top_range, bottom_range, *, binary=False, level=0.95):
    """Return the interval of mean(top) ÷ mean(bottom): that of the mean of top − θ · bottom, solved for θ.

    Args:
        top: by document; `bottom` likewise.
        top_range: the least and the greatest top there can be, each one number or [documents].
        bottom_range: the same of the bottom.
        binary: whether all come of scores of 0 and 1.
        level: coverage.
    """
    estimate = top.mean() / bottom.mean()
    residual = top - estimate * bottom
    centre = np.median(residual)
    seen = np.abs(residual - centre).max()
    equal = bool((top == bottom).all())
    least, greatest = np.min(top_range[0]), np.max(top_range[1])

    def support(theta):
        scaled = sorted(theta * end for end in bottom_range)
        low, high = least - scaled[1], greatest - scaled[0]
        if binary or equal:
            return low, high
        moved = sorted((estimate - theta) * end for end in (bottom.min(), bottom.max()))
        return max(low, centre - seen + moved[0]), min(high, centre + seen + moved[1])

    if binary or mass(residual) < DENSE:
        low, high = score_ends(top, bottom, estimate, support, level)
    else:
        above, below = resampled(np.stack([top, bottom]))
        low, high = bca(estimate, above / below, residual, level)
    if not binary and not equal:
        if np.ndim(top_range[0]):  # of each document its own range, beside its own bottom
            floor, roof = np.min(top_range[0] - estimate * bottom), np.max(top_range[1] - estimate * bottom)
        else:
            scaled = sorted(estimate * end for end in (bottom.min(), bottom.max()))
            floor, roof = least - scaled[1], greatest - scaled[0]
        far = unseen(len(top), level) / bottom.mean()
        low = min(low, estimate - far * max(centre - floor - seen, 0.0))
        high = max(high, estimate + far * max(roof - centre - seen, 0.0))
    return Ends(estimate, max(low, 0.0) if np.min(top_range[0]) >= 0 else low, high)


def joint_critical(rows):
    """Return the critical value that serves all pairs of rows together, and the standard error of each pair."""
    draws = resampled(rows) - rows.mean(axis=1)[:, None]
    off = draws[:, None] - draws[None]
    errors = np.sqrt((off**2).mean(axis=2))
    first, second = np.nonzero(np.triu(errors > 1e-12 * np.abs(rows.mean(axis=1)).max(), 1))
    if not len(first):
        return 0.0, errors
    normal = np.quantile(np.max(np.abs(off[first, second]) / errors[first, second][:, None], axis=0), 0.95)
    return student(normal, rows.shape[1] - 1) * np.sqrt(rows.shape[1] / (rows.shape[1] - 1)), errors


def student(z, freedom):
    """Return the quantile of Student's t where the normal's is z: the expansion of Cornish and Fisher."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
