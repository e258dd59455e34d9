"""All rows of a table at once: resampled together, compared in pairs, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from dlbench.stats.bounds import BCA, SCORE, Samples, mean_bounds
from dlbench.stats.hypothesis_tests import corrected, drawn_p, enumerated_p, swaps
from dlbench.stats.intervals import LEVEL, Bounds, Clusters, Interval, metric_range, paired_rows, seed_reach
from dlbench.stats.ranks import Rank, rank_intervals, tie_groups
from dlbench.stats.resample import RESAMPLES, FloatArray, Resample, cluster_codes, cluster_totals, seed_noise

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Every row against every other; all arrays are [rows, rows], the first row minus the second.

    Attributes:
        estimate: difference of the mean scores.
        low, high: bounds of its 95 % interval.
        p: paired permutation test.
        corrected: p, corrected over all pairs of the table (Benjamini-Hochberg).
        won: documents on which the first row scores higher; `won.T` are those it lost.
        different: whether the corrected test and the interval both say so.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray
    corrected: FloatArray
    won: IntArray
    different: BoolArray


class Table:
    """Rows of scores over the same documents.

    What is asked for is computed once, for all rows together, and equals what `paired_difference` and `permutation_p`
    give for two rows alone.

    Args:
        rows: scores, each [documents] or [fit seeds, documents].
        bounds: least and greatest score there can be; (0, 1), (0, 100) or the scores' own range where not given.
        clusters: the source of each document, where documents share one.
        resamples: bootstrap draws, and random swaps.
        level: coverage aimed at.
        seed: makes the draws the same every time.

    Raises:
        ValueError: there are no rows, the documents are not as many, or a score is not finite.
    """

    def __init__(
        self,
        rows: Sequence[npt.ArrayLike],
        *,
        bounds: Bounds | None = None,
        clusters: Clusters | None = None,
        resamples: int = RESAMPLES,
        level: float = LEVEL,
        seed: int = 0,
    ) -> None:
        if not rows:
            raise ValueError("a table of scores needs a row")
        self._rows = paired_rows(*rows)
        self.level, self.seed = level, seed
        self.scores = np.stack([row.mean(axis=0) for row in self._rows])  # [rows, documents]
        self.means: FloatArray = self.scores.mean(axis=1)
        self.resample = Resample(self.scores.shape[1], clusters=clusters, resamples=resamples, seed=seed)
        _, self._least, self._greatest = metric_range(self._rows, bounds)
        self._binary = np.array([bool(np.isin(row, (self._least, self._greatest)).all()) for row in self._rows])

    @cached_property
    def draws(self) -> FloatArray:
        """Resampled means, [resamples, rows], of documents and, for rows of several, of fit seeds."""
        draws = self.resample.means(self.scores)
        for number, row in enumerate(self._rows):
            if len(row) > 1:
                draws[:, number] += seed_noise(row.mean(axis=1), self.resample.resamples, [self.seed, number])
        return draws

    @cached_property
    def pairs(self) -> Pairs:
        """Every row against every other."""
        raise NotImplementedError

    @cached_property
    def ranks(self) -> list[Rank]:
        """Every row's rank with its interval."""
        return rank_intervals(self.means, self.draws, self.level)

    @cached_property
    def groups(self) -> list[tuple[int, ...]]:
        """Rows that cannot be told apart: see `dlbench.stats.ranks.tie_groups`."""
        return tie_groups(self.means, self.pairs.different)
