"""All rows of a table at once: resampled together, compared in pairs, ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from dlbench.stats.bounds import Samples, mean_bounds
from dlbench.stats.hypothesis_tests import corrected, drawn_p, enumerated_p, interval_p, swaps
from dlbench.stats.intervals import LEVEL, Bounds, Clusters, metric_range, paired_rows, seed_reach
from dlbench.stats.ranks import Rank, rank_intervals, tie_groups
from dlbench.stats.resample import RESAMPLES, FloatArray, Resample, cluster_totals, seed_noise

MOST_PAIRED = 400
"""Most rows of a table whose pairs are tested: the number of tests grows with the square."""
FEW = 50
"""Documents (or sources) up to which Student's t is too certain for scores that take few values."""
BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Every row against every other; all arrays are [rows, rows], the first row minus the second.

    Attributes:
        estimate: difference of the mean scores.
        low, high: bounds of its 95 % interval.
        p: paired permutation test.
        corrected: p, corrected over all pairs of the table (Benjamini-Hochberg).
        won: number of documents on which the first row scores higher; `won.T` has those on which it scores lower.
        different: whether the corrected test and the interval both say so.
    """

    estimate: FloatArray
    low: FloatArray
    high: FloatArray
    p: FloatArray
    corrected: FloatArray
    won: IndexArray
    different: BoolArray


class Table:
    """Rows of scores over the same documents.

    Each property is computed on first use, for all rows together, and equals what `paired_difference` and
    `permutation_p` give for two rows alone.

    Args:
        rows: scores, each [documents] or [fit seeds, documents].
        bounds: least and greatest possible score; (0, 1), (0, 100) or the scores' own range where not given.
        clusters: the source of each document, where documents share one.
        resamples: bootstrap draws, and random swaps.
        level: nominal coverage.
        seed: makes the draws the same every time.

    Raises:
        ValueError: there are no rows, the numbers of documents differ, or a score is not finite.
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
        """Resampled means, [rows, resamples]: over documents and, for rows of several fit seeds, over these."""
        draws = self._document_draws.copy()
        for number, row in enumerate(self._rows):
            if len(row) > 1:
                draws[number] += seed_noise(row.mean(axis=1), self.resample.resamples, [self.seed, number])
        return draws

    @cached_property
    def _document_draws(self) -> FloatArray:
        return self.resample.means(self.scores)

    @cached_property
    def pairs(self) -> Pairs:
        """Every row against every other."""
        count = len(self.scores)
        first, second = np.triu_indices(count, 1)
        difference = self.scores[first] - self.scores[second]  # [pairs, documents]
        estimate = difference.mean(axis=1)
        low, high = self._bounds(first, second, difference)
        p = self._p(first, second, difference)
        seeds = self._seed_squares()
        extra = seeds[first] + seeds[second]
        wide = extra > 0
        low = np.where(wide, estimate - np.sqrt((estimate - low) ** 2 + extra), low)
        high = np.where(wide, estimate + np.sqrt((high - estimate) ** 2 + extra), high)
        span = self._greatest - self._least
        low, high = np.maximum(low, -span), np.minimum(high, span)
        p[wide] = np.maximum(p, interval_p(estimate, low, high, self.level))[wide]
        after = corrected(p)
        different = (after < 1 - self.level) & ((low > 0) | (high < 0))

        def square(upper: npt.NDArray[Any], lower: npt.NDArray[Any], diagonal: float) -> FloatArray:
            matrix = np.full((count, count), diagonal)
            matrix[first, second], matrix[second, first] = upper, lower
            return matrix

        return Pairs(
            estimate=square(estimate, -estimate, 0.0),
            low=square(low, -high, 0.0),
            high=square(high, -low, 0.0),
            p=square(p, p, 1.0),
            corrected=square(after, after, 1.0),
            won=square((difference > 0).sum(axis=1), (difference < 0).sum(axis=1), 0).astype(np.intp),
            different=square(different, different, 0.0).astype(np.bool_),
        )

    def _bounds(self, first: IndexArray, second: IndexArray, difference: FloatArray) -> tuple[FloatArray, FloatArray]:
        span = np.full(len(difference), self._greatest - self._least)
        samples = Samples(
            values=difference,
            low=-span,
            high=span,
            binary=self._binary[first] & self._binary[second],
            codes=self.resample.codes,
        )
        draws = self._document_draws
        low, high, _ = mean_bounds(samples, lambda some: draws[first[some]] - draws[second[some]], self.level)
        return low, high

    def _p(self, first: IndexArray, second: IndexArray, difference: FloatArray) -> FloatArray:
        """Return the p value of every pair: exact where that is cheap, from shared random swaps otherwise."""
        codes = self.resample.codes
        rows = self.scores if codes is None else cluster_totals(self.scores, codes)
        pairs = difference if codes is None else cluster_totals(difference, codes)
        size = np.abs(pairs)
        differing = np.count_nonzero(pairs, axis=1)
        greatest = size.max(axis=1)
        p = np.ones(len(pairs))
        same = size.min(axis=1, where=pairs != 0, initial=np.inf) >= greatest * (1 - 1e-12)
        won = np.count_nonzero(pairs > 0, axis=1)
        signs = same & (differing > 0)
        p[signs] = np.minimum(1, 2 * bdtr(np.minimum(won, differing - won), differing, 0.5))[signs]
        few = ~same & (differing < self.resample.resamples.bit_length())
        for number in np.flatnonzero(few):
            p[number] = enumerated_p(pairs[number][pairs[number] != 0])
        many = np.flatnonzero(~same & ~few)
        if many.size:
            # The documents' means are subtracted, since sums of smaller numbers round less.
            centred = rows - rows.mean(axis=0)
            swapped = np.concatenate(
                [centred @ signs.T for signs in swaps(rows.shape[1], self.resample.resamples, self.seed)], axis=1
            )
            for start in range(0, many.size, 64):
                some = many[start : start + 64]
                seen, total = pairs[some].sum(axis=1), size[some].sum(axis=1)
                p[some] = drawn_p(swapped[first[some]] - swapped[second[some]], seen, total)
        return p

    def _differing(self) -> IndexArray:
        """Return on how many documents (or sources) every two rows differ, [rows, rows]."""
        codes = self.resample.codes
        rows = self.scores if codes is None else cluster_totals(self.scores, codes)
        rounding = 1e-12 * np.abs(rows).max(initial=0.0)
        return np.stack([np.count_nonzero(np.abs(rows - row) > rounding, axis=1) for row in rows])

    def _seed_squares(self) -> FloatArray:
        """Return the square of each row's half width of the interval over its fit seeds, [rows]."""
        return np.array([seed_reach(row.mean(axis=1), self.level) ** 2 for row in self._rows])

    @cached_property
    def ranks(self) -> list[Rank]:
        """Every row's rank with its interval; all intervals hold jointly.

        No row is surely above another from which it differs on too few documents (or sources): the probability that all
        of m favour one of two equal rows is 2^(1 − m), and over all pairs it may be 1 − level at most. Up to
        `MOST_PAIRED` rows the interval of the difference must exclude 0 too and, for few documents, the permutation
        test must agree, corrected by Bonferroni as far as its number of draws allows.
        """
        share = (1 - self.level) / max(1, len(self.means) * (len(self.means) - 1) // 2)
        apart = self._differing() >= 1 - np.log2(share)
        if len(self.means) <= MOST_PAIRED:
            apart &= (self.pairs.low > 0) | (self.pairs.high < 0)
            if self.resample.units <= FEW:
                apart &= self.pairs.p <= max(share, 1 / (self.resample.resamples + 1))
        return rank_intervals(self.means, self.draws, self.level, units=self.resample.units, apart=apart)

    @cached_property
    def groups(self) -> list[tuple[int, ...]]:
        """Rows that cannot be told apart: see `dlbench.stats.ranks.tie_groups`."""
        return tie_groups(self.means, self.pairs.different)
