"""Bounds for ratios of means, many with one denominator; `dlbench.stats.bounds` says which interval is used where."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from dlbench.stats.bounds import CELLS, DENSE, bca_bounds
from dlbench.stats.resample import FloatArray, Resample, cluster_totals
from dlbench.stats.score import score_ends
from dlbench.stats.unseen import effective_mass, level_of, unit_deviations, unit_room, unseen_distance

Limit = float | FloatArray
"""The least or greatest possible value: one for all documents, or [documents]."""


def ratio_bounds(
    tops: FloatArray,
    bottom: FloatArray,
    bounds: tuple[tuple[Limit, Limit], tuple[float, float]],
    resample: Resample,
    level: float,
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]] | None:
    """Return the bounds of mean(top) ÷ mean(bottom) for several tops, and which of them are score intervals.

    Args:
        tops: numerators, [samples, documents].
        bottom: the denominator, [documents].
        bounds: least and greatest possible value, of `tops` (one for all, or one per document) and of `bottom`.
        resample: over the documents.
        level: two-sided coverage.

    Returns:
        Infinite where the data do not bound a ratio; None where the mean of `bottom` is not above 0, or is not in more
        than 1 % of the resamples.
    """
    if bottom.mean() <= 0:
        return None
    bottom_draws = resample.means(bottom)[0]
    defined = bottom_draws > 0
    if defined.mean() < 0.99:
        return None
    ratios = _Ratios(tops, bottom, *bounds, resample)
    estimate = ratios.estimate
    low, high = np.empty(len(tops)), np.empty(len(tops))
    score = ratios.whole | (effective_mass(ratios.units[0]) < DENSE)
    inner = level_of(resample.codes, level)
    step = max(1, CELLS // ratios.below.size)
    for start in range(0, len(tops), step):
        chosen = np.flatnonzero(score[start : start + step]) + start
        if chosen.size:
            low[chosen], high[chosen] = ratios.score_bounds(chosen, inner)
    dense = np.flatnonzero(~score)
    if dense.size:
        draws = resample.means(tops[dense])[:, defined] / bottom_draws[defined]
        influence = ratios.above[dense] - estimate[dense, None] * ratios.below
        low[dense], high[dense] = bca_bounds(estimate[dense], draws, influence, inner)
    down, up = ratios.unseen(level)
    low, high = np.minimum(low, estimate - down), np.maximum(high, estimate + up)
    return np.maximum(low, 0.0) if np.min(bounds[0][0]) >= 0 else low, high, score


@dataclass(eq=False)
class _Ratios:
    """Several ratios of means with one denominator, over the same documents."""

    tops: FloatArray
    bottom: FloatArray
    top_bounds: tuple[Limit, Limit]
    bottom_bounds: tuple[float, float]
    resample: Resample

    @cached_property
    def estimate(self) -> FloatArray:
        """The ratios, [samples]."""
        return np.asarray(self.tops.mean(axis=1) / self.bottom.mean(), dtype=np.float64)

    @cached_property
    def _totals(self) -> FloatArray:
        """Sums over each unit of the tops and, last, of the bottom, [samples + 1, units]."""
        rows = np.vstack([self.tops, self.bottom])
        codes = self.resample.codes
        totals: FloatArray = rows if codes is None else cluster_totals(rows, codes)
        return totals

    @property
    def above(self) -> FloatArray:
        """Sums of the tops over each unit, [samples, units]."""
        return self._totals[:-1]

    @property
    def below(self) -> FloatArray:
        """Sums of the bottom over each unit, [units]."""
        sums: FloatArray = self._totals[-1]
        return sums

    @cached_property
    def residuals(self) -> FloatArray:
        """Top − ratio × bottom, whose mean is 0, [samples, documents]."""
        return np.asarray(self.tops - self.estimate[:, None] * self.bottom, dtype=np.float64)

    @cached_property
    def units(self) -> tuple[FloatArray, FloatArray]:
        """How each unit's residual deviates from the typical, [samples, units], and the typical, [samples]."""
        return unit_deviations(self.residuals, self.resample.codes)

    @cached_property
    def whole(self) -> npt.NDArray[np.bool_]:
        """Where tops and bottom take whole values only, or the least and the greatest possible ones, [samples]."""
        return _whole(self.tops, self.top_bounds) & _whole(self.bottom[None], self.bottom_bounds)

    def unseen(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Return how far below and above its ratio documents that were not seen may move it, [samples] each."""
        units, typical = self.units
        lowest, highest = _farthest(self.estimate, self.bottom, *self.top_bounds)
        known = self.whole | (self.tops == self.bottom).all(axis=1)
        centre = typical if self.resample.codes is None else np.median(self.residuals, axis=1)
        off = self.residuals - centre[:, None]
        down, up = (
            np.where(known, 0.0, unseen_distance(units, off, room, level)) / self.bottom.mean()
            for room in (typical - lowest, highest - typical)
        )
        return down, up

    def score_bounds(self, chosen: npt.NDArray[np.intp], level: float) -> tuple[FloatArray, FloatArray]:
        """Return the score intervals of some of the ratios, by their numbers."""
        estimate, real = self.estimate[chosen], ~self.whole[chosen]
        least, greatest = float(np.min(self.top_bounds[0])), float(np.max(self.top_bounds[1]))
        bottom_least, bottom_greatest = self.bottom_bounds
        codes = self.resample.codes
        scale = self.below.size / self.resample.documents  # of totals, so that a unit counts about 1
        a = self.above[chosen].T * scale
        b = np.broadcast_to(self.below[:, None] * scale, a.shape)
        residual = a - estimate * b
        centre = np.median(residual, axis=0)
        largest = 1.0 if codes is None else float(np.bincount(codes).max() * scale)
        if codes is None:
            seen = np.abs(residual - centre).max(axis=0)
            known = real & (self.above[chosen] != self.below).any(axis=1)
        else:
            off = self.residuals[chosen]
            within = off - np.median(off, axis=1)[:, None]
            farthest = np.abs(within).max(axis=1)
            most = np.maximum(greatest - estimate * bottom_least, estimate * bottom_greatest - least)
            seen = unit_room((residual - centre).T, within, np.where(real, farthest, most))
            known = farthest > 0

        def support(value: FloatArray) -> tuple[FloatArray, FloatArray]:
            possible = np.sort([value * bottom_least, value * bottom_greatest], axis=0)
            moved = np.sort([(estimate - value) * b.min(), (estimate - value) * b.max()], axis=0)
            low, high = least - possible[1], greatest - possible[0]
            if codes is not None:  # no more is known of a source than what was seen
                return (
                    np.where(known, centre - seen + moved[0], low * largest),
                    np.where(known, centre + seen + moved[1], high * largest),
                )
            return (
                np.where(known, np.maximum(low, centre - seen + moved[0]), low),
                np.where(known, np.minimum(high, centre + seen + moved[1]), high),
            )

        return score_ends(a, b, np.ones_like(a), np.full(len(chosen), float(self.below.size)), support, level)


def _whole(rows: FloatArray, bounds: tuple[Limit, Limit]) -> npt.NDArray[np.bool_]:
    """Whether values are whole, or only the least and the greatest possible ones, as of binary scores less chance."""
    ends = np.equal(rows, bounds[0]) | np.equal(rows, bounds[1])
    return np.asarray((rows == np.rint(rows)).all(axis=1) | ends.all(axis=1))


def _farthest(estimate: FloatArray, bottom: FloatArray, least: Limit, greatest: Limit) -> tuple[FloatArray, FloatArray]:
    """Return the least and the greatest top − estimate × bottom that any document could have, [samples] each."""
    if np.ndim(least) == 0 and np.ndim(greatest) == 0:
        ends = estimate[:, None] * np.array([bottom.min(), bottom.max()])
        return np.asarray(least - ends.max(axis=1)), np.asarray(greatest - ends.min(axis=1))
    ends = estimate[:, None] * bottom
    return np.min(least - ends, axis=1), np.max(greatest - ends, axis=1)
