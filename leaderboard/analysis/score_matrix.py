"""The matrix of scores of a view, entries by documents, ready for the statistics.

Scores are shares of full depth's quality above chance, like the quality kept of a record: chance is subtracted, and the
result divided by full depth's mean above chance under the same scoring. So rows of several tasks, and an oracle that is
scored on other references, are comparable, and "95 % of full" means the same everywhere. Over several tasks
the documents of all are taken together, each weighted so that every task counts the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dlbench import stats
from dlbench.data.rows.sources import clusters
from dlbench.leaderboard.data.entries import BoardEntry
from dlbench.leaderboard.data.run_files import NO_SOURCES, Scores, Sources
from dlbench.leaderboard.data.tracks import Row
from dlbench.leaderboard.data.views import BoardView
from dlbench.stats.intervals import metric_range
from dlbench.stats.resample import FloatArray

MOST_COMPARED = stats.MOST_PAIRED
"""Rows of a view that are tested against each other."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Rows that are tested against each other.

    Attributes:
        place: entry → its row.
        documents: what they were scored on.
        scores: means over fit seeds, [rows, documents].
        pairs: every row against every other.
    """

    place: Mapping[str, int]
    documents: Sequence[str]
    scores: FloatArray
    pairs: stats.Pairs


class ScoreMatrix:
    """The scores of a view's entries over its documents, in shares of full depth's quality.

    Args:
        view: whose entries.
        scores: record key → document id → score.
        sources: track → document id → source, of documents that have one.
    """

    def __init__(self, view: BoardView, scores: Scores, sources: Sources = NO_SOURCES) -> None:
        self.view = view
        self.documents: list[str] = []
        self._parts: list[tuple[list[str], float]] = []
        total = 0
        for place, track in enumerate(view.tracks):
            ids = _common(view, place, scores)
            self._parts.append((ids, float(len(ids))))
            self.documents += [f"{track.task.name}: {one}" if view.suite else one for one in ids]
            total += len(ids)
        self.clusters = _clusters(view, [ids for ids, _ in self._parts], sources)
        # A task's documents together weigh as much as any other task's.
        self._weights = [total / (len(view.tracks) * max(1.0, count)) for _, count in self._parts]
        self.rows: dict[str, FloatArray] = {}
        for entry in view.entries:
            if (row := self._row(entry, scores)) is not None:
                self.rows[entry.id] = row
        self.entries = [entry for entry in view.entries if entry.id in self.rows]
        self._top = _metric_top(self.entries, scores)

    def _row(self, entry: BoardEntry, scores: Scores) -> FloatArray | None:
        """Return an entry's scores, [seeds, documents]; None where they are not there, or not those of its record."""
        parts = []
        for place, rows in enumerate(entry.rows):
            ids = self._parts[place][0]
            chosen = rows[: entry.repeats]
            if not ids or not all(_trusted(row, scores) for row in chosen):
                return None
            by_seed = [row.shares([scores[row.record.key].get(one, np.nan) for one in ids]) for row in chosen]
            parts.append(np.array(by_seed) * self._weights[place])
        scores_of_all = np.concatenate(parts, axis=1)
        return scores_of_all if np.isfinite(scores_of_all).all() else None

    @cached_property
    def full(self) -> FloatArray | None:
        """Full depth's scores, [documents]."""
        full = [self.rows[entry.id] for entry in self.entries if entry.role == "full"]
        return full[0].mean(axis=0) if full else None

    @property
    def independent(self) -> int:
        """How many independent documents there are: those that share a source count once."""
        return len(self.documents if self.clusters is None else set(self.clusters))

    @cached_property
    def compared(self) -> Compared:
        """The first `MOST_COMPARED` entries, tested against each other: the number of tests grows with the square."""
        entries = self.entries[:MOST_COMPARED]
        table = self.table(entries)
        place = {entry.id: row for row, entry in enumerate(entries)}
        return Compared(place, self.documents, table.scores, table.pairs)

    def limits(self, rows: Iterable[FloatArray]) -> tuple[float, float]:
        """Return the least and the greatest score that there can be among such rows."""
        if self.view.suite:
            every = list(rows)
            return min(0.0, *(float(row.min()) for row in every)), max(float(row.max()) for row in every)
        bottom, top = (self.view.entries[0].first.shares([0.0, self._top]) * self._weights[0]).tolist()
        least = min(float(row.min()) for row in rows)
        greatest = max(float(row.max()) for row in rows)
        return min(bottom, least), max(top, greatest)

    def table(self, entries: Sequence[BoardEntry]) -> stats.Table:
        """Return entries as a table of the statistics."""
        rows = [self.rows[entry.id] for entry in entries]
        return stats.Table(rows, bounds=self.limits(rows), clusters=self.clusters)

    def kept(self, rows: Sequence[FloatArray]) -> list[tuple[float, float, float]]:
        """Return what each of several rows keeps of full depth, with its interval: estimate, low, high.

        All rows are resampled at once, as points of one curve over their numbers.
        """
        if not rows or self.full is None:
            return []
        points = [stats.Point(float(number), row) for number, row in enumerate(rows)]
        curve = stats.Curve(points, bounds=self.limits(rows))
        band = curve.band(range(len(rows)), full=self.full, clusters=self.clusters)
        return list(zip(band.estimate.tolist(), band.low.tolist(), band.high.tolist(), strict=True))

    def point(self, entry: BoardEntry, axis: str) -> stats.Point:
        """Return an entry as a point of a curve over a cost."""
        return stats.Point(entry.costs[axis], self.rows[entry.id])


def _common(view: BoardView, place: int, scores: Scores) -> list[str]:
    """Return the documents of a task that the most rows have: normally all of them, and the same."""
    counts: dict[frozenset[str], int] = {}
    for entry in view.entries:
        for row in entry.rows[place]:
            if row.record.key in scores:
                ids = frozenset(scores[row.record.key])
                counts[ids] = counts.get(ids, 0) + 1
    best = min(counts, key=lambda ids: (-counts[ids], -len(ids), sorted(ids)[:1]), default=frozenset())
    return sorted(best)


def _clusters(view: BoardView, parts: Sequence[Sequence[str]], sources: Sources) -> list[str] | None:
    """Return the clusters of all documents; those of one task are set apart from those of another. None without any."""
    by_task = [
        clusters(ids, sources.get(track.name, {}), f"{track.name}: ")
        for ids, track in zip(parts, view.tracks, strict=True)
    ]
    if not any(by_task):
        return None
    return [
        label
        for shared, ids, track in zip(by_task, parts, view.tracks, strict=True)
        for label in shared or [f"{track.name}: document {one}" for one in ids]
    ]


def _metric_top(entries: Iterable[BoardEntry], scores: Scores) -> float:
    """Return the greatest score that the metric allows. An oracle's share of its own full depth may exceed 1."""
    rows = [row for entry in entries for same in entry.rows for row in same[: entry.repeats]]
    ends = [end(scores[row.record.key].values()) for row in rows for end in (min, max)]
    return metric_range([np.array([ends])])[2] if ends else 1.0


def _trusted(row: Row, scores: Scores) -> bool:
    """Return whether the published scores are those of which the record has the mean."""
    published, quality = scores.get(row.record.key), row.record.quality
    if not published or quality is None or len(published) != row.record.task.n:
        return False
    return abs(sum(published.values()) / len(published) - quality.mean) <= 1e-6 * max(1.0, abs(quality.mean))
