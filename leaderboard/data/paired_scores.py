"""Settings with their scores by document, ready for paired tests, and controls at matched compute."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dlbench.data.rows.sources import clusters
from dlbench.leaderboard.data.fit_seeds import group_seeds
from dlbench.leaderboard.data.run_files import NO_SOURCES, Scores, Sources
from dlbench.leaderboard.data.tracks import Row, Track
from dlbench.stats import Curve, Point

SLACK = 0.03
"""How far beyond the end of a control's curve a realised layer share may lie for that end to stand for it."""


@dataclass(frozen=True, slots=True)
class ScoredEntry:
    """One setting of one method in a track: a row, or several that differ in their fit seed alone.

    Attributes:
        ids: documents that all of its rows were scored on, in order.
        scores: [fit seeds, documents]; None where there are no scores, or not of one set of documents.
        clusters: those of the documents, where some share a source.
    """

    rows: tuple[Row, ...]
    ids: tuple[str, ...]
    scores: npt.NDArray[np.float64] | None
    clusters: tuple[str, ...] | None = None

    @property
    def row(self) -> Row:
        """The first of its rows."""
        return self.rows[0]

    @property
    def ok(self) -> bool:
        """Whether all of its rows met their budget."""
        return all(row.ok for row in self.rows)

    @property
    def layers(self) -> float:
        """Realised layer share."""
        return float(np.mean([row.record.compute.layer_share for row in self.rows if row.record.compute]))

    @property
    def total(self) -> float:
        """Realised share of full depth's total FLOPs."""
        return float(np.mean([row.record.compute.flop_share_total for row in self.rows if row.record.compute]))

    @property
    def where(self) -> tuple[float | None, str, str, str]:
        """Budget, backbone, dtype and KV policy; the policy is empty where it changes nothing."""
        record = self.row.record
        return record.run.budget, record.backbone.sha256, record.backbone.dtype, policy_of(self.row)


def scored_entries(
    track: Track, scores: Scores, sources: Sources = NO_SOURCES, *, unreachable: bool = False
) -> list[ScoredEntry]:
    """Return the track's settings in the order of its rows; fit seeds are put together.

    Args:
        track: its rows.
        scores: record key → document id → primary score.
        sources: track → document id → source, of documents that have one.
        unreachable: take those too of which a seed missed its budget.
    """
    entries = []
    for rows in group_seeds(track.rows).values():
        if any(row.record.compute is None for row in rows):
            continue
        by_row = [scores.get(row.record.key) or {} for row in rows]
        ids = tuple(sorted(by_row[0]))
        complete = bool(ids) and all(one.keys() == by_row[0].keys() for one in by_row)
        values = np.array([[one[id_] for id_ in ids] for one in by_row]) if complete else None
        entries.append(ScoredEntry(rows, ids, values, clusters(ids, sources.get(track.name, {}))))
    return [entry for entry in entries if entry.ok or unreachable]


def comparable(entry: ScoredEntry, other: ScoredEntry) -> bool:
    """Return whether two entries ran on one backbone, in one dtype and under one KV policy, where they have one."""
    return entry.where[1:3] == other.where[1:3] and same_policy(entry.row, other.row)


def policy_of(row: Row) -> str:
    """Return the KV policy of a row; empty where it changes nothing, since the method does not decide per token."""
    return row.record.run.kv if row.record.method.scope == "token" else ""


def same_policy(row: Row, other: Row) -> bool:
    """Return whether two rows ran under one KV policy; a row that has no use for one goes with each."""
    mine, its = policy_of(row), policy_of(other)
    return not mine or not its or mine == its


def matched(entry: ScoredEntry, controls: Iterable[ScoredEntry]) -> tuple[ScoredEntry, ...]:
    """Return the variants of a control at the entry's realised layer share, each on the curve of its own settings.

    Variants whose curve does not reach that share are left out. None is picked by its scores, since that would flatter
    the control (`dlbench.leaderboard.analysis.against`).
    """
    curves: dict[str, list[ScoredEntry]] = defaultdict(list)
    for control in controls:
        if control.scores is not None and control.ids == entry.ids and comparable(entry, control):
            curves[control.row.label].append(control)
    at_share = []
    for several in curves.values():
        curve = curve_of(several)
        point = None if curve is None else curve.at(entry.layers, slack=SLACK)
        if point is not None:
            at_share.append(
                ScoredEntry(several[0].rows, entry.ids, np.atleast_2d(np.asarray(point.scores)), entry.clusters)
            )
    return tuple(at_share)


def usual(labels: Iterable[str]) -> str | None:
    """Return the variant that stands for a control where there must be one: per token, else the first by name.

    It is chosen by its name alone, since the best on the test documents is high by luck.
    """
    return min(labels, key=lambda label: ("token" not in label, label), default=None)


def curve_of(known: Iterable[ScoredEntry]) -> Curve | None:
    """Return the curve of entries over the realised layer share; None where none of them has scores."""
    points = [Point(one.layers, one.scores) for one in known if one.scores is not None]
    return Curve(points) if points else None
