"""Intervals of means, differences and ratios over documents; each function picks the method and names it.

Methods answer the same documents, so every comparison is paired: position i of two score lists is the same document.
`dlbench.stats.bounds` says which interval is used where. Rows that were fitted with several seeds are [fit seeds,
documents]: the spread over the seeds is added to the bounds by the square-and-add rule (MOVER: Zou & Donner, Statistics
in Medicine 27, 2008) with the quantile of Student's t for that number of seeds. A single seed says nothing about the
spread, so none is added.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Unpack

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from dlbench.stats.bounds import BCA, SCORE, Samples, mean_bounds
from dlbench.stats.ratio_bounds import Limit, ratio_bounds
from dlbench.stats.resample import Drawing, FloatArray, Resample, as_scores, cluster_codes

LEVEL = 0.95
FEWEST_DOCUMENTS = 5
"""Independent documents below which the share that is kept is given without an interval."""
Bounds = tuple[float, float]
Clusters = Sequence[Hashable]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between the bounds of its confidence interval; `method` names the kind of interval."""

    estimate: float
    low: float
    high: float
    method: str = field(default="", compare=False)

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the bounds."""
        return self.low > 0 or self.high < 0


def mean_interval(
    scores: npt.ArrayLike,
    *,
    bounds: Bounds | None = None,
    level: float = LEVEL,
    **drawing: Unpack[Drawing],
) -> Interval:
    """Return the mean score with its interval.

    Args:
        scores: one per document, or [fit seeds, documents].
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.
        level: nominal coverage.
        drawing: how documents are resampled, see `Drawing`.

    Raises:
        ValueError: there is no score, or one that is not finite.
    """
    return contrast([scores], [1.0], bounds=bounds, level=level, **drawing)


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    *,
    bounds: Bounds | None = None,
    level: float = LEVEL,
    **drawing: Unpack[Drawing],
) -> Interval:
    """Return mean(a) − mean(b) with its interval; position i of both is the same document.

    Binary scores have Tango's score interval. Real-valued ones have BCa of the paired bootstrap or, where the effective
    mass of their deviations is below 100, the empirical-likelihood score interval; both are widened to allow for
    documents that were not sampled (`dlbench.stats.bounds`). `Interval.method` says which it is.

    Args:
        a: one score per document, or [fit seeds, documents].
        b: like `a`.
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.
        level: nominal coverage.
        drawing: how documents are resampled, see `Drawing`.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    return contrast([a, b], [1.0, -1.0], bounds=bounds, level=level, **drawing)


def contrast(
    rows: Sequence[npt.ArrayLike],
    weights: Sequence[float],
    *,
    bounds: Bounds | None = None,
    level: float = LEVEL,
    **drawing: Unpack[Drawing],
) -> Interval:
    """Return a weighted sum of the rows' means with its interval: a difference is (1, −1).

    Args:
        rows: scores over the same documents, each [documents] or [fit seeds, documents].
        weights: one per row.
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.
        level: nominal coverage.
        drawing: how documents are resampled, see `Drawing`.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    lists = paired_rows(*rows)
    values = sum(weight * one.mean(axis=0) for weight, one in zip(weights, lists, strict=True))
    assert isinstance(values, np.ndarray)
    binary, least, greatest = metric_range(lists, bounds)
    low = sum(min(weight * least, weight * greatest) for weight in weights)
    high = sum(max(weight * least, weight * greatest) for weight in weights)
    samples = Samples(
        values=values[None],
        low=np.array([low]),
        high=np.array([high]),
        binary=np.array([binary]),
        codes=cluster_codes(drawing.get("clusters"), values.size),
    )

    def draws(_: npt.NDArray[np.intp]) -> FloatArray:
        return Resample(values.size, **drawing).means(values)

    lower, upper, by_score = mean_bounds(samples, draws, level)
    names = {(1.0,): "Wilson score", (1.0, -1.0): "Tango score"}
    method = (names.get(tuple(weights), SCORE) if binary and samples.codes is None else SCORE) if by_score[0] else BCA
    interval = Interval(float(values.mean()), float(lower[0]), float(upper[0]), method)
    wide = with_seeds(interval, [weight * one.mean(axis=1) for weight, one in zip(weights, lists, strict=True)], level)
    return replace(wide, low=max(wide.low, low), high=min(wide.high, high))


def ratio_interval(
    top: npt.ArrayLike,
    bottom: npt.ArrayLike,
    *,
    bounds: tuple[tuple[Limit, Limit], Bounds] | None = None,
    level: float = LEVEL,
    **drawing: Unpack[Drawing],
) -> Interval | None:
    """Return mean(top) ÷ mean(bottom) with its interval.

    The score interval (Fieller's, with the empirical likelihood's variance) where the effective mass of top − ratio ×
    bottom is below 100 or all values are whole; BCa of the paired bootstrap otherwise.

    Args:
        top: one value per document, or [fit seeds, documents].
        bottom: one value per document.
        bounds: least and greatest possible value, of `top` (one for all, or one per document) and of `bottom`;
            their own where not given.
        level: nominal coverage.
        drawing: how documents are resampled, see `Drawing`.

    Returns:
        None where the mean of `bottom` is not above 0, or is not in more than 1 % of the resamples, or where the ratio
        has no finite bounds: such a ratio has no meaningful interval.

    Raises:
        ValueError: the documents are not as many, there is no value, or one is not finite.
    """
    above, below = paired_rows(top, bottom)
    if len(below) > 1:
        raise ValueError("the denominator of a ratio has one row of scores: give the mean over its fit seeds")
    a, b = above.mean(axis=0), below[0]
    span = bounds or ((a.min(), a.max()), (b.min(), b.max()))
    resample = Resample(a.size, **drawing)
    ends = ratio_bounds(a[None], b, span, resample, level)
    if ends is None or not np.isfinite(ends[:2]).all():
        return None
    low, high, by_score = (one[0] for one in ends)
    interval = Interval(float(a.mean() / b.mean()), float(low), float(high), SCORE if by_score else BCA)
    wide = with_seeds(interval, [above.mean(axis=1) / b.mean()], level)
    return replace(wide, low=max(wide.low, 0.0)) if np.min(span[0][0]) >= 0 else wide


def retained(
    method_scores: npt.ArrayLike,
    full_scores: npt.ArrayLike,
    *,
    chance: float = 0.0,
    same: bool = False,
    bounds: Bounds | None = None,
    level: float = LEVEL,
    **drawing: Unpack[Drawing],
) -> Interval | None:
    """Return the ratio of means, method over full, both above `chance`, with its interval.

    Args:
        method_scores: one per document, or [fit seeds, documents].
        full_scores: one per document.
        chance: the mean score of guessing.
        same: the two are one run, full depth beside itself: then it retains exactly 1. Scores that are merely equal on
            all sampled documents leave doubt.
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.
        level: nominal coverage.
        drawing: how documents are resampled, see `Drawing`.

    Returns:
        None where full's mean is not above chance, or is not in more than 1 % of the resamples: then the ratio has no
        meaningful interval.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    above, below = paired_rows(method_scores, full_scores)
    _, least, greatest = metric_range([above, below], bounds)
    span = (least - chance, greatest - chance)
    ratio = ratio_interval(above - chance, below[0] - chance, bounds=(span, span), level=level, **drawing)
    return Interval(1.0, 1.0, 1.0, "the same") if same and ratio is not None else ratio


def with_seeds(interval: Interval, seed_values: Sequence[FloatArray], level: float = LEVEL) -> Interval:
    """Widen an interval over documents by the spread over fit seeds: square and add (MOVER).

    Args:
        interval: of a sum of means, over documents.
        seed_values: for each term of the sum, its value per fit seed, [fit seeds]; terms of one seed add nothing.
        level: two-sided coverage.
    """
    extra = sum(seed_reach(values, level) ** 2 for values in seed_values)
    if extra == 0.0:
        return interval
    estimate = interval.estimate
    seeds = max(len(values) for values in seed_values)
    return replace(
        interval,
        low=estimate - float(np.sqrt((estimate - interval.low) ** 2 + extra)),
        high=estimate + float(np.sqrt((interval.high - estimate) ** 2 + extra)),
        method=f"{interval.method}, {seeds} fit seeds",
    )


def seed_reach(values: FloatArray, level: float = LEVEL) -> float:
    """Return half the width of the t interval of a mean over fit seeds; 0 for one seed."""
    if len(values) < 2:
        return 0.0
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return float(stdtrit(len(values) - 1, (1 + level) / 2)) * error


def paired_rows(*rows: npt.ArrayLike) -> list[FloatArray]:
    """Return every row as [fit seeds, documents], after checking that all have the same number of documents.

    Raises:
        ValueError: they are not, there is no score, or one is not finite.
    """
    lists = [np.atleast_2d(as_scores(row)) for row in rows]
    if len({one.shape[1] for one in lists}) > 1:
        counts = " and ".join(str(one.shape[1]) for one in lists)
        raise ValueError(f"paired scores need one per document each, got {counts}")
    return lists


def metric_range(rows: Sequence[FloatArray], bounds: Bounds | None = None) -> tuple[bool, float, float]:
    """Return whether all scores are the metric's least or greatest, and these: 0 and 1, 0 and 100, or the scores' own.

    A metric's range is taken as 0 to 100 where some score is above 50, so that a metric from 1 to 10 is not. Given
    bounds are widened where a score lies outside, as interpolated ones may by a little.
    """
    least = min(float(one.min()) for one in rows)
    greatest = max(float(one.max()) for one in rows)
    if bounds is not None:
        low, high = min(bounds[0], least), max(bounds[1], greatest)
    elif least >= 0 and (greatest <= 1 or 50 < greatest <= 100):
        low, high = 0.0, 1.0 if greatest <= 1 else 100.0
    else:
        low, high = min(0.0, least), greatest
    return all(bool(np.isin(one, (low, high)).all()) for one in rows), low, high
