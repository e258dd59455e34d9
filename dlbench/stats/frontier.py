"""Quality as a function of realised compute: curves, bands, matched comparisons, what a method reaches and at which cost.

A curve is piecewise linear between the settings that ran, in order of their realised cost, and is never made monotone
and never extrapolated. Between two settings stands, for every document, the mixture of its two scores, so a point *on*
a curve has scores by document like a setting that ran, and all paired statistics hold for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlbench.stats.intervals import LEVEL, Bounds, Clusters, Interval
from dlbench.stats.resample import RESAMPLES, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A setting: its realised cost, a share of full depth's, and its scores.

    Attributes:
        cost: mean over documents.
        scores: [documents], or [fit seeds, documents].
        costs: cost by document, [documents], where it is known; then the cost is resampled with the scores.
    """

    cost: float
    scores: FloatArray
    costs: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A curve with its pointwise interval, on a grid of costs; arrays are [grid]."""

    cost: FloatArray
    estimate: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True, slots=True)
class Area:
    """The area under a curve as its mean height.

    Attributes:
        height: area ÷ width, so that curves over the same costs compare; with its interval.
        low, high: the costs that it covers, which may be less than asked for: nothing is extrapolated.
    """

    height: Interval
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ComputeAt:
    """The least realised cost that keeps a share of full depth's quality.

    Attributes:
        target: that share.
        cost: None where it is not reached or cannot be told.
        reason: then says why; empty otherwise.
    """

    target: float
    cost: float | None
    reason: str = ""


class Curve:
    """A method's settings in order of cost; settings of one cost are averaged.

    Raises:
        ValueError: there is no point, or their documents are not as many.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        raise NotImplementedError

    @property
    def span(self) -> tuple[float, float]:
        """The least and the greatest cost."""
        raise NotImplementedError

    def at(self, cost: float, costs: FloatArray | None = None) -> Point | None:
        """Return the point of the curve at a cost (whose spread over documents is `costs`); None outside its span."""
        raise NotImplementedError

    def band(
        self,
        grid: npt.ArrayLike,
        *,
        full: npt.ArrayLike | None = None,
        bounds: Bounds | None = None,
        clusters: Clusters | None = None,
        resamples: int = RESAMPLES,
        level: float = LEVEL,
        seed: int = 0,
    ) -> Band:
        """Return the curve on the part of the grid within its span: mean score or, given `full`, what it retains."""
        raise NotImplementedError

    def area(
        self,
        low: float = 0.2,
        high: float = 1.0,
        *,
        bounds: Bounds | None = None,
        clusters: Clusters | None = None,
        resamples: int = RESAMPLES,
        level: float = LEVEL,
        seed: int = 0,
    ) -> Area | None:
        """Return the area under the curve between two costs, as far as it goes; None where it has no width there."""
        raise NotImplementedError


def matched_difference(point: Point, control: Curve, **options: object) -> Interval | None:
    """Return the point's mean score minus the control's at the same realised cost; None outside the control's span."""
    raise NotImplementedError


def gap_closed(method: npt.ArrayLike, control: npt.ArrayLike, oracle: npt.ArrayLike, **options: object) -> Interval | None:
    """Return (method − control) ÷ (oracle − control); None where the denominator's interval holds 0 or lies below."""
    raise NotImplementedError


def pareto_probability(points: Sequence[Point], **options: object) -> FloatArray:
    """Return for every point the share of resamples in which none is at once as cheap and as good, and better in one."""
    raise NotImplementedError


def compute_at(points: Sequence[Point], full: npt.ArrayLike, target: float = 0.95, **options: object) -> ComputeAt:
    """Return the least cost at which the one-sided 95 % bound of mean(q − target·full) is at least 0."""
    raise NotImplementedError
