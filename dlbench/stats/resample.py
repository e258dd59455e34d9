"""The paired bootstrap: one set of resampled documents, shared by every row of a table.

Efron & Tibshirani, *An Introduction to the Bootstrap* (1993). The unit of resampling is the document with all its
scores or, where documents share a source, the source with all its documents (Davison & Hinkley 1997, §3.8). A draw is a
vector of weights, so the resampled means of sixty rows are one matrix product, and rows stay paired in every draw.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache
from typing import TypedDict

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 10_000
_CELLS = 1 << 21  # weights held at once: 16 MiB, whatever the number of documents


class Drawing(TypedDict, total=False):
    """Keyword arguments of everything that resamples documents."""

    clusters: Sequence[Hashable] | None
    """The source of each document, where documents share one; then sources are resampled."""
    resamples: int
    """Number of bootstrap draws."""
    seed: int
    """Makes the draws the same every time."""


class Resample:
    """Weights of `resamples` bootstrap draws over documents; the same seed gives the same draws.

    Rows stay paired if they are passed to one `means` call or to several of the same `Resample`.

    Args:
        documents: their number.
        clusters: the source of each document; None where each is its own.
        resamples: bootstrap draws.
        seed: makes the draws the same every time.

    Raises:
        ValueError: there are no documents, or there is not one cluster for each.
    """

    def __init__(
        self,
        documents: int,
        *,
        clusters: Sequence[Hashable] | None = None,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        if documents < 1 or resamples < 1:
            raise ValueError("scores of at least one document and one resample are needed")
        self.documents = documents
        self.resamples = resamples
        self.seed = seed
        self.codes = cluster_codes(clusters, documents)

    @property
    def units(self) -> int:
        """Number of units that are resampled: documents, or their clusters."""
        return self.documents if self.codes is None else int(self.codes.max()) + 1

    def means(self, scores: npt.ArrayLike) -> FloatArray:
        """Return the resampled mean of every row of scores.

        Args:
            scores: [documents], or [rows, documents].

        Returns:
            [rows, resamples]. Rows that are equal have equal draws.

        Raises:
            ValueError: not one finite score per document.
        """
        rows = np.atleast_2d(as_scores(scores))
        if rows.shape[1] != self.documents:
            raise ValueError(f"scores of {rows.shape[1]} documents for a resample of {self.documents}")
        # In a matrix product the sums of equal rows may round differently, which would rank one above the other.
        unique, place = np.unique(rows, axis=0, return_inverse=True)
        centre = unique.mean(axis=1)
        totals, sizes = self._totals(unique - centre[:, None])
        means = np.empty((len(unique), self.resamples))  # in this order, since it is read by rows
        done = 0
        for weights in self._weights(len(sizes)):
            part = slice(done, done + len(weights))
            means[:, part] = (weights @ totals).T / (weights @ sizes) + centre[:, None]
            done += len(weights)
        return means[place.reshape(-1)]

    def _totals(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sum rows over the documents of each unit, [units, rows]; and the units' sizes, [units]."""
        if self.codes is None:
            return rows.T, np.ones(self.documents)
        return cluster_totals(rows, self.codes).T, np.bincount(self.codes).astype(np.float64)

    def _weights(self, units: int) -> Iterator[FloatArray]:
        """How often each unit is drawn, [draws, units], some draws at a time."""
        step = max(1, _CELLS // units)
        for start in range(0, self.resamples, step):
            size = min(step, self.resamples - start)
            yield _counts(units, size, self.seed, start).astype(np.float64)


@lru_cache(maxsize=16)  # of 2 MiB at most: the draws of some 3,000 documents
def _counts(units: int, size: int, seed: int, start: int) -> npt.NDArray[np.uint8]:
    # The probability that a unit is drawn more than 255 times is negligible.
    rng = np.random.default_rng([seed, units, start])
    drawn = rng.integers(0, units, size=(size, units), dtype=np.int32)
    drawn += np.arange(size, dtype=np.int32)[:, None] * units
    return np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.uint8)


def cluster_codes(clusters: Sequence[Hashable] | None, documents: int) -> npt.NDArray[np.intp] | None:
    """Number the clusters from 0; None where every document is its own.

    Raises:
        ValueError: not one cluster per document.
    """
    if clusters is None:
        return None
    if len(clusters) != documents:
        raise ValueError(f"{len(clusters)} clusters for scores of {documents} documents")
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(one, len(numbers)) for one in clusters], dtype=np.intp)
    return None if len(numbers) == documents else codes


def cluster_totals(rows: FloatArray, codes: npt.NDArray[np.intp]) -> FloatArray:
    """Sum [rows, documents] over the documents of each cluster: [rows, clusters]."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    totals: FloatArray = np.add.reduceat(rows[:, order], starts, axis=1)
    return totals


def as_scores(scores: npt.ArrayLike) -> FloatArray:
    """Return scores as an array, checked: [documents], or [fit seeds, documents] or [rows, documents].

    Raises:
        ValueError: no scores, more dimensions, or a score that is not finite.
    """
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError("scores must be numbers, one per document") from None
    if values.ndim not in (1, 2):
        raise ValueError(f"scores need one number per document, got the shape {values.shape}")
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("scores must be there, and finite")
    return values


def seed_noise(seed_means: FloatArray, resamples: int, seed: Sequence[int]) -> FloatArray:
    """Draw deviations of a mean over fit seeds, [resamples].

    They follow Student's t with the seeds' standard error: three seeds are too few to resample, since their 27 draws
    never go beyond the most extreme seed.
    """
    if len(seed_means) < 2:
        return np.zeros(resamples)
    error = float(seed_means.std(ddof=1)) / len(seed_means) ** 0.5
    drawn: FloatArray = np.random.default_rng([*seed, 2]).standard_t(len(seed_means) - 1, resamples)
    return np.asarray(error * drawn, dtype=np.float64)
