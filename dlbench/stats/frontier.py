"""Quality as a function of realised compute: curves with bands and areas, and comparisons at matched compute.

A curve is piecewise linear between the settings that ran, in order of their realised cost; it is never made monotone
and never extrapolated. Between two settings every document has the weighted mean of its two scores, so a point *on* a
curve has scores by document like a setting that ran, and the statistics of paired scores apply to it. Where costs are
known by document they are resampled too: to first order a document's cost moves its score along the curve's slope (the
delta method; Davison & Hinkley 1997, §2.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import numpy as np
import numpy.typing as npt

from dlbench.stats.bands import EMPTY, Band, OnGrid, retained_band, score_band
from dlbench.stats.intervals import (
    LEVEL,
    Bounds,
    Interval,
    mean_interval,
    metric_range,
    paired_difference,
    paired_rows,
    seed_reach,
)
from dlbench.stats.resample import Drawing, FloatArray, Resample, as_scores


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A setting: its realised cost, as a share of full depth's, and its scores.

    Attributes:
        cost: mean over documents.
        scores: [documents], or [fit seeds, documents].
        costs: cost by document, [documents], where it is known: then it is resampled with the scores.
    """

    cost: float
    scores: npt.ArrayLike
    costs: npt.ArrayLike | None = None


@dataclass(frozen=True, slots=True)
class Area:
    """The area under a curve as its mean height: area ÷ width.

    Attributes:
        height: with its interval.
        low: least cost that is covered, no less than was asked for; areas over different costs cannot be compared.
        high: greatest cost that is covered.
    """

    height: Interval
    low: float
    high: float


class Curve:
    """A method's settings in order of cost; settings of one cost are averaged.

    Args:
        points: settings over the same documents, in any order.
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.

    Raises:
        ValueError: there is no point, the numbers of documents differ, or a score or cost is not finite.
    """

    def __init__(self, points: Sequence[Point], *, bounds: Bounds | None = None) -> None:
        if not points:
            raise ValueError("a curve needs the scores of at least one setting")
        ordered = sorted(points, key=lambda point: point.cost)
        rows = paired_rows(*(point.scores for point in ordered))
        _, low, high = metric_range(rows, bounds)
        self.bounds = (low, high)
        costs = as_scores([point.cost for point in ordered])
        spread = [_spread(point, rows[0].shape[1]) for point in ordered]
        self.costs, starts = np.unique(costs, return_index=True)  # [settings]
        ends = [*starts[1:], len(ordered)]
        self._rows = [_mix(rows[i:j], np.full(j - i, 1 / (j - i))) for i, j in zip(starts, ends, strict=True)]
        self._spread = np.stack(
            [np.mean(spread[i:j], axis=0) for i, j in zip(starts, ends, strict=True)]
        )  # [settings, documents], mean 0

    @property
    def span(self) -> Bounds:
        """The least and the greatest cost."""
        return float(self.costs[0]), float(self.costs[-1])

    @property
    def documents(self) -> int:
        """How many documents the settings were scored on."""
        return int(self._spread.shape[1])

    def at(self, cost: float, costs: npt.ArrayLike | None = None, *, slack: float = 0.0) -> Point | None:
        """Return the point of the curve at a cost, None outside its span.

        Args:
            cost: where.
            costs: cost by document of the other setting whose cost this is; its spread is then included.
            slack: how far outside the span a cost is still answered by the nearest end, since no two methods meet a
                budget exactly; the point then has the end's own cost.
        """
        if not self.costs[0] - slack <= cost <= self.costs[-1] + slack:
            return None
        cost = float(np.clip(cost, self.costs[0], self.costs[-1]))
        spread = _spread(Point(cost, (), costs), self.documents)
        right = int(np.searchsorted(self.costs, cost))
        if self.costs[right] == cost and (costs is None or right == 0):
            left, share = right, 1.0
        else:
            left = right - 1
            share = float((cost - self.costs[left]) / (self.costs[right] - self.costs[left]))
        if left == right:
            # At a setting itself the curve has no single slope, so its cost is taken as fixed.
            return Point(cost, self._rows[right])
        mixed = _mix([self._rows[left], self._rows[right]], np.array([1 - share, share]))
        rise = self._rows[right].mean() - self._rows[left].mean()
        slope = rise / (self.costs[right] - self.costs[left])
        moved = spread - (1 - share) * self._spread[left] - share * self._spread[right]
        return Point(cost, mixed + slope * moved)

    def band(
        self,
        grid: npt.ArrayLike,
        *,
        full: npt.ArrayLike | None = None,
        full_cost: float | None = None,
        chance: float = 0.0,
        level: float = LEVEL,
        **drawing: Unpack[Drawing],
    ) -> Band:
        """Return the curve with its pointwise interval on the part of a grid that lies within its span.

        Args:
            grid: costs.
            full: full depth's scores, [documents]; with them the band is of what the method retains of them, and empty
                where that is not defined.
            full_cost: cost at which the curve is full depth itself, and so retains exactly 1.
            chance: the mean score of guessing, subtracted from both in what is retained.
            level: nominal coverage, at each cost.
            drawing: how documents are resampled, see `Drawing`.
        """
        wanted = as_scores(grid) if np.size(grid) else np.zeros(0)
        inside = wanted[(wanted >= self.costs[0]) & (wanted <= self.costs[-1])]
        points = [point for cost in inside if (point := self.at(float(cost))) is not None]
        if not points:
            return EMPTY
        rows = [np.atleast_2d(np.asarray(point.scores)) for point in points]
        seeds = np.array([seed_reach(row.mean(axis=1), level) for row in rows])
        curve = OnGrid(inside, np.stack([row.mean(axis=0) for row in rows]), seeds)
        resample = Resample(self.documents, **drawing)
        if full is None:
            return score_band(curve, self.bounds, resample, level)
        scores = paired_rows(curve.values[0], full)[1][0]
        return retained_band(curve, scores, chance, self.bounds, resample, level, full_cost=full_cost)

    def area(
        self,
        low: float = 0.2,
        high: float = 1.0,
        *,
        level: float = LEVEL,
        **drawing: Unpack[Drawing],
    ) -> Area | None:
        """Return the area under the part of the curve between two costs; None where that part has no width.

        Args:
            low: least cost.
            high: greatest cost.
            level: nominal coverage.
            drawing: how documents are resampled, see `Drawing`.
        """
        start, end = max(low, self.span[0]), min(high, self.span[1])
        if end <= start:
            return None
        values = self.heights(start, end)
        if self._spread.any():
            means = np.array([row.mean() for row in self._rows])
            values = values + _cost_slopes(self.costs, means, start, end) @ self._spread
        height = mean_interval(values, bounds=self.bounds, level=level, **drawing)
        return Area(height, start, end)

    def heights(self, start: float, end: float) -> FloatArray:
        """Return every document's mean height between two costs, [fit seeds, documents].

        Args:
            start: least cost, within the span.
            end: greatest cost, within the span.

        Raises:
            ValueError: the costs are outside the span, or there is no width between them.
        """
        if not self.span[0] <= start < end <= self.span[1]:
            raise ValueError(
                f"costs {start:g} to {end:g} of a curve that runs from {self.span[0]:g} to {self.span[1]:g}"
            )
        weights = np.array([_height(self.costs, heights, start, end) for heights in np.eye(len(self.costs))])
        return _mix(self._rows, weights)


def matched_difference(
    point: Point,
    control: Curve,
    *,
    slack: float = 0.0,
    level: float = LEVEL,
    **drawing: Unpack[Drawing],
) -> Interval | None:
    """Return the point's mean score minus the control's at the same realised cost; None outside the control's span.

    Args:
        point: the method's setting.
        control: settings of what it is compared with, over the same documents.
        slack: how far outside the control's span a cost is still answered by the nearest end.
        level: nominal coverage.
        drawing: how documents are resampled, see `Drawing`.

    Raises:
        ValueError: the numbers of documents differ, there is no score, or one is not finite.
    """
    other = control.at(point.cost, point.costs, slack=slack)
    if other is None:
        return None
    return paired_difference(
        point.scores,
        other.scores,
        bounds=control.bounds,
        level=level,
        **drawing,
    )


def _spread(point: Point, documents: int) -> FloatArray:
    """Return each document's cost less the mean, [documents]."""
    if point.costs is None:
        return np.zeros(documents)
    costs = as_scores(point.costs)
    if costs.shape != (documents,):
        raise ValueError(f"costs of shape {costs.shape} for scores of {documents} documents")
    return np.asarray(costs - costs.mean(), dtype=np.float64)


def _mix(rows: Sequence[FloatArray], weights: FloatArray) -> FloatArray:
    """Return the weighted sum of rows, [fit seeds, documents].

    Rows with fewer fit seeds than the one with most count by their mean over the seeds.
    """
    seeds = max(len(row) for row in rows)
    parts = [row if len(row) == seeds else row.mean(axis=0, keepdims=True) for row in rows]
    total = np.zeros((seeds, rows[0].shape[1]))
    for weight, part in zip(weights, parts, strict=True):
        total += weight * part
    return total


def _height(costs: FloatArray, heights: FloatArray, start: float, end: float) -> float:
    """Return the mean height between two costs of the line through the points."""
    corners = np.unique(np.r_[start, costs[(costs > start) & (costs < end)], end])
    line = np.interp(corners, costs, heights)
    return float(np.sum((line[1:] + line[:-1]) / 2 * np.diff(corners)) / (end - start))


def _cost_slopes(costs: FloatArray, means: FloatArray, start: float, end: float) -> FloatArray:
    """Return the derivative of the mean height by each setting's cost, [settings]; by central differences."""
    slopes = np.zeros(len(costs))
    step = 1e-4 * float(np.diff(costs).min())
    for place in range(len(costs)):
        moved = []
        for sign in (-1, 1):
            nudged = costs.copy()
            nudged[place] += sign * step
            inner = max(start, nudged[0]), min(end, nudged[-1])
            moved.append(_height(nudged, means, *inner))
        slopes[place] = (moved[1] - moved[0]) / (2 * step)
    return slopes
