"""Paired tests, their correction over a table, and the least difference that a test of this size can detect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, ndtr, ndtri

from dlbench.stats.bounds import Samples, unseen_reach
from dlbench.stats.intervals import Bounds, Clusters, metric_range, paired_rows
from dlbench.stats.resample import RESAMPLES, FloatArray, cluster_codes, cluster_totals

_CELLS = 1 << 21


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Number of documents on which the first row scores higher, lower, and the same."""

    won: int
    lost: int
    tied: int


def outcomes(a: npt.ArrayLike, b: npt.ArrayLike) -> Outcomes:
    """Count the documents on which a scores higher than b, lower, and the same (of fit seeds: on average).

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    first, second = paired_rows(a, b)
    difference = first.mean(axis=0) - second.mean(axis=0)
    won, lost = int((difference > 0).sum()), int((difference < 0).sum())
    return Outcomes(won, lost, difference.size - won - lost)


def permutation_p(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    clusters: Clusters | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> float:
    """Return the two-sided p value of "a and b may be swapped within every document", for the mean difference.

    Fisher's randomisation test for pairs: exact where all swaps number no more than `resamples`, and for differences
    that are all of one size (binary scores), where it is McNemar's exact test, the sign test on the documents that
    differ. Else drawn at random (then never below 1 / (resamples + 1); Phipson & Smyth 2010). With clusters all
    documents of a source are swapped together. Rows of several fit seeds are averaged over them.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    first, second = paired_rows(a, b)
    difference = first.mean(axis=0) - second.mean(axis=0)
    codes = cluster_codes(clusters, difference.size)
    totals = difference if codes is None else cluster_totals(difference[None], codes)[0]
    difference = totals[totals != 0]  # swapping equal scores changes nothing
    if difference.size == 0:
        return 1.0
    size = np.abs(difference)
    if size.max() - size.min() <= 1e-12 * size.max():
        return sign_test_p(int((difference > 0).sum()), int((difference < 0).sum()))
    if difference.size < resamples.bit_length():
        return enumerated_p(difference)
    swapped = np.concatenate([signs @ totals for signs in swaps(totals.size, resamples, seed)])
    return float(drawn_p(swapped[None], np.array([totals.sum()]), np.array([size.sum()]))[0])


def enumerated_p(difference: FloatArray) -> float:
    """Return the p value over all swaps of a few differences."""
    signs = 1 - 2 * ((np.arange(2**difference.size)[:, None] >> np.arange(difference.size)) & 1)
    reached = abs(difference.sum()) - _ROUNDING * np.abs(difference).sum()
    return float((np.abs(signs @ difference) >= reached).mean())


_ROUNDING = 1e-11  # relative: sums of the same numbers in another order differ, and still count as equal


def drawn_p(swapped: FloatArray, seen: FloatArray, size: FloatArray) -> FloatArray:
    """Return p values from sums after random swaps.

    Args:
        swapped: [pairs, resamples].
        seen: the sums without swaps, [pairs].
        size: sums of the absolute differences, [pairs].
    """
    reached = np.abs(seen) - _ROUNDING * size
    extreme = np.count_nonzero(np.abs(swapped) >= reached[:, None], axis=1)
    return np.asarray((extreme + 1) / (swapped.shape[1] + 1), dtype=np.float64)


def swaps(units: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[FloatArray]:
    """Yield random swaps, 1 or −1 per unit, [some, units]; the same for every pair of a table."""
    step = max(1, _CELLS // units)
    for start in range(0, resamples, step):
        yield _swaps(units, min(step, resamples - start), seed, start).astype(np.float64)


@lru_cache(maxsize=16)
def _swaps(units: int, count: int, seed: int, start: int) -> npt.NDArray[np.int8]:
    rng = np.random.default_rng([seed, units, start, 1])
    return 1 - 2 * rng.integers(0, 2, size=(count, units), dtype=np.int8)


def interval_p(estimate: FloatArray, low: FloatArray, high: FloatArray, level: float) -> FloatArray:
    """Return the two-sided p values that correspond to intervals, as if each side were normal."""
    towards = np.where(estimate > 0, estimate - low, high - estimate)
    reach = ndtri((1 + level) / 2) * np.abs(estimate) / np.maximum(towards, 1e-300)
    return np.asarray(2 * ndtr(-reach), dtype=np.float64)


def sign_test_p(won: int, lost: int) -> float:
    """Return the two-sided p value of the exact sign test; on binary scores this is McNemar's exact test."""
    if won + lost == 0:
        return 1.0
    return float(min(1.0, 2 * bdtr(min(won, lost), won + lost, 0.5)))


def corrected(p_values: npt.ArrayLike) -> FloatArray:
    """Return p values corrected for the false discovery rate (Benjamini & Hochberg 1995); at most 1 each.

    Raises:
        ValueError: one is not in [0, 1].
    """
    from scipy.stats import false_discovery_control  # a second of loading, which most processes do without

    values = np.asarray(p_values, dtype=np.float64)
    return values if values.size == 0 else np.asarray(false_discovery_control(values), dtype=np.float64)


def minimum_detectable(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    bounds: Bounds | None = None,
    clusters: Clusters | None = None,
    power: float = 0.8,
    alpha: float = 0.05,
) -> float | None:
    """Return the least true difference that interval and test on these documents detect with a given power.

    That is (z(1 − α/2) + z(power)) standard errors of the mean paired difference, with the spread that was seen; where
    documents that were not seen may move the mean by more than z(1 − α/2) standard errors, that distance replaces them.

    Args:
        a: one score per document, or [fit seeds, documents].
        b: like `a`.
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.
        clusters: the source of each document, where documents share one.
        power: the probability of detecting it.
        alpha: the probability of a false detection.

    Returns:
        None with fewer than two documents, or where none differs: then the spread is not known.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    rows = paired_rows(a, b)
    difference = rows[0].mean(axis=0) - rows[1].mean(axis=0)
    codes = cluster_codes(clusters, difference.size)
    residual = difference - difference.mean()
    totals = residual if codes is None else cluster_totals(residual[None], codes)[0]
    if totals.size < 2 or not difference.any():
        return None
    binary, least, greatest = metric_range(rows, bounds)
    span = np.array([greatest - least])
    samples = Samples(difference[None], -span, span, np.array([binary]), codes)
    doubt = float(np.max(unseen_reach(samples, 1 - alpha)))
    error = np.sqrt((totals**2).sum() * totals.size / (totals.size - 1)) / difference.size
    return float(max(ndtri(1 - alpha / 2) * error, doubt) + ndtri(power) * error)
