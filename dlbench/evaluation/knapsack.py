"""The exact multiple-choice knapsack behind the oracle.

Every document (group) takes exactly one candidate (item); a candidate's weight is the number of layers it runs, and its
value is its score. One dynamic programme over documents gives the best mean score for every average depth.

With D[c] the best sum of scores at a total weight of at most c, adding a document with candidates (w, v) gives
D'[c] = max over candidates of v + D[c − w]. The weight of every document's lightest candidate is subtracted beforehand,
so that every capacity c ≥ 0 can be met; a capacity below their sum cannot, and gives no choice rather than a clipped
one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dlbench.stats.resample import FloatArray

IntArray = npt.NDArray[np.int64]

_SLACK = 1e-9  # tolerance for float rounding of an average depth or a mean score
_MOST_CELLS = 1 << 31  # choices kept for tracing back, one or two bytes each


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One candidate per document.

    Attributes:
        items: [documents] index of the chosen candidate.
        depth: average weight, in layers where weights are.
        value: mean score.
    """

    items: IntArray
    depth: float
    value: float


class Knapsack:
    """All optimal choices among the candidates of a set of documents, solved once.

    Ties go to the lighter choice. Time and memory grow with documents × (sum of weight ranges); weights are reduced by
    their common divisor and dominated candidates are dropped first.

    Args:
        weights: [documents, candidates] or [candidates] integers ≥ 0.
        values: [documents, candidates] scores.

    Raises:
        ValueError: shapes don't match, a weight is not a whole number ≥ 0, a score is not finite, or the range of the
            weights would take gigabytes.
    """

    def __init__(self, weights: npt.ArrayLike, values: npt.ArrayLike) -> None:
        self.values, self.weights = _checked(values, weights)
        self.groups = len(self.values)
        lightest = self.weights.min(axis=1)
        spare = self.weights - lightest[:, None]
        self._unit = int(np.gcd.reduce(spare, axis=None)) or 1
        self._base = int(lightest.sum())
        self._best, self._taken = _solve(spare // self._unit, self.values)

    @property
    def least(self) -> float:
        """Least average depth at which every document has a candidate."""
        return self._base / self.groups

    def frontier(self) -> tuple[FloatArray, FloatArray]:
        """Return the average depths at which the best mean score rises, ascending, and these scores."""
        rises = np.flatnonzero(np.diff(self._best, prepend=-np.inf) > 0)
        return (self._base + rises * self._unit) / self.groups, self._best[rises] / self.groups

    def choose(self, depth: float) -> Choice | None:
        """Return the best choice that runs at most `depth` layers on average, None where there is none."""
        if not math.isfinite(depth):
            raise ValueError(f"an average depth must be finite, not {depth}")
        spare = math.floor((depth + _SLACK) * self.groups) - self._base
        if spare < 0:
            return None
        return self._trace(min(spare // self._unit, len(self._best) - 1))

    def reach(self, value: float) -> Choice | None:
        """Return the shallowest choice whose mean score is at least `value`, None where there is none."""
        enough = np.flatnonzero(self._best >= (value - _SLACK) * self.groups)
        return self._trace(int(enough[0])) if enough.size else None

    def _trace(self, capacity: int) -> Choice:
        # The first capacity with this sum of scores: any more would only add layers that do not help.
        capacity = int(np.searchsorted(self._best, self._best[capacity]))
        items = np.empty(self.groups, dtype=np.int64)
        for group in range(self.groups - 1, -1, -1):
            taken = self._taken[group]
            # Beyond the range that the documents so far can use, every capacity has the choice of the last one.
            capacity = min(capacity, len(taken) - 1)
            items[group] = taken[capacity]
            spare = self.weights[group, items[group]] - self.weights[group].min()
            capacity -= int(spare) // self._unit
        return _choice(items, self.weights, self.values)


def best_of(values: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Choice:
    """Return the best candidate of every document whatever its weight; among equals the lightest, then the first.

    Without weights the choice's depth is 0.

    Raises:
        ValueError: as `Knapsack`.
    """
    checked, heavy = _checked(values, np.zeros(np.shape(values), dtype=np.int64) if weights is None else weights)
    best = checked == checked.max(axis=1, keepdims=True)
    items = np.where(best, heavy, np.iinfo(np.int64).max).argmin(axis=1)
    return _choice(items, heavy, checked)


def cross(choose_on: npt.ArrayLike, score_on: npt.ArrayLike, weights: npt.ArrayLike, depth: float) -> Choice | None:
    """Choose by one table of scores and evaluate on another, so that the choice cannot profit from noise in its scores.

    Args:
        choose_on: scores that the choice is made by, [documents, candidates].
        score_on: scores that the returned `value` is the mean of, [documents, candidates].
        weights: as `Knapsack`.
        depth: most layers on average.

    Raises:
        ValueError: as `Knapsack`, or the two tables differ in shape.
    """
    if np.shape(choose_on) != np.shape(score_on):
        raise ValueError(f"the tables differ in shape: {np.shape(choose_on)} and {np.shape(score_on)}")
    chosen = Knapsack(weights, choose_on).choose(depth)
    if chosen is None:
        return None
    scores, heavy = _checked(score_on, weights)
    return _choice(chosen.items, heavy, scores)


def _choice(items: IntArray, weights: IntArray, values: FloatArray) -> Choice:
    rows = np.arange(len(items))
    return Choice(items, float(weights[rows, items].mean()), float(values[rows, items].mean()))


def _checked(values: npt.ArrayLike, weights: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    scores = np.asarray(values, dtype=np.float64)
    given = np.asarray(weights)
    if scores.ndim != 2 or scores.size == 0 or given.shape not in (scores.shape, scores.shape[1:]):
        raise ValueError(f"no [documents, candidates] table: scores {scores.shape}, weights {given.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")
    if not np.issubdtype(given.dtype, np.number) or not _whole(given):
        raise ValueError("weights must be whole numbers, 0 or more")
    return scores, np.broadcast_to(given.astype(np.int64), scores.shape)


def _whole(numbers: npt.NDArray[Any]) -> bool:
    return bool((np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers))).all())


def _undominated(spare: IntArray, values: FloatArray) -> Sequence[tuple[int, int, float]]:
    """Return (index, weight, value) of the candidates that no other of at most their weight equals, lightest first."""
    kept: list[tuple[int, int, float]] = []
    for index in np.lexsort((-values, spare)):
        if not kept or values[index] > kept[-1][2]:
            kept.append((int(index), int(spare[index]), float(values[index])))
    return kept


def _solve(spare: IntArray, values: FloatArray) -> tuple[FloatArray, list[npt.NDArray[Any]]]:
    """Return D over all capacities, and per document the candidate taken at each capacity."""
    small = np.uint8 if values.shape[1] <= 256 else np.uint16 if values.shape[1] <= 65_536 else np.uint32
    groups = [_undominated(*group) for group in zip(spare, values, strict=True)]
    cells = sum((len(groups) - place) * group[-1][1] for place, group in enumerate(groups))
    if cells > _MOST_CELLS:
        raise ValueError(f"weights span too much: {cells:,} cells to solve, scale them down")
    best = np.zeros(1)
    taken: list[npt.NDArray[Any]] = []
    for group in groups:
        first, _, value = group[0]
        # Capacities beyond the old range have the value of its end.
        before = np.pad(best, (0, group[-1][1]), mode="edge")
        best = before + value
        choice = np.full(best.size, first, dtype=small)
        for index, weight, value in group[1:]:
            offered = before[: before.size - weight] + value
            better = offered > best[weight:]
            np.maximum(best[weight:], offered, out=best[weight:])
            choice[weight:][better] = index
        taken.append(choice)
    return best, taken
