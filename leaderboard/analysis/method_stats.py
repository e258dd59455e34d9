"""Methods over all budgets: the area under their curves, the compute that is enough, the gap that they close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dlbench import stats
from dlbench.leaderboard.analysis.enough import Enough, enough_of
from dlbench.leaderboard.analysis.gap_closed import GapCurves, gaps
from dlbench.leaderboard.analysis.ranking import RankedPlace, competitors, ranked_places
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, series
from dlbench.stats.resample import FloatArray

AREA = (0.2, 1.0)
"""Total FLOPs, as shares of full's, over which the area under a method's curve is taken."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A method over all budgets.

    Attributes:
        place: by area, among methods that ran at all budgets.
        area: under its curve over `AREA`, 1 at full depth's quality throughout; nothing is kept below its cheapest row.
        enough: by the share of full's quality that is asked for.
        kept: share of full's quality, by budget.
        gaps: share of the honest oracle's gap closed, by budget.
    """

    label: str
    method: str
    kind: str
    place: RankedPlace | None
    area: stats.Interval | None
    enough: Mapping[float, Enough]
    kept: Mapping[float, float]
    gaps: Mapping[float, stats.Interval]


def summarise(matrix: ScoreMatrix) -> tuple[Summary, ...]:
    """Return all methods of a view, best first: those that ran at every budget are ranked by their area.

    A row that missed its budget stands for no budget, but is a setting like any other where the question is what is
    enough.
    """
    view = matrix.view
    budgets = {entry.budget for entry in view.of("method") if entry.budget is not None}
    ran = series(entry for entry in view.of("method") if entry.retained is not None)
    methods = series(entry for several in ran.values() for entry in several if entry.ok)
    rows = {
        label: _area_rows(matrix, entries)
        for label, entries in methods.items()
        if all(entry.id in matrix.rows and "total" in entry.costs for entry in entries)
    }
    complete = [label for label in rows if {entry.budget for entry in methods[label]} >= budgets]
    places = _places(matrix, {label: rows[label] for label in complete})
    areas = _areas(matrix, {label: methods[label] for label in complete}, rows)
    curves = GapCurves(matrix)
    summaries = [
        Summary(
            label=label,
            method=entries[0].method,
            kind=kind_of(entries[0]),
            place=places.get(label),
            area=areas.get(label),
            enough={target: enough_of(matrix, entries, target) for target in (0.95, 0.99)},
            kept={one.budget: one.retained for one in entries if one.ok and one.budget is not None and one.retained},
            gaps=gaps(curves, entries),
        )
        for label, entries in ran.items()
    ]
    return tuple(sorted(summaries, key=lambda one: (one.place is None, one.place.rank if one.place else 0, one.label)))


def _places(matrix: ScoreMatrix, rows: Mapping[str, FloatArray]) -> dict[str, RankedPlace]:
    """Return the places by area of the methods that are ranked, of those that ran at every budget."""
    ranked = {entry.label for entry in competitors(matrix.view.entries)}
    compete = [label for label in rows if label in ranked]
    if not compete:
        return {}
    areas = [rows[label] for label in compete]
    table = stats.Table(areas, bounds=_span(areas), clusters=matrix.clusters)
    return dict(zip(compete, ranked_places(table), strict=True))


def _span(rows: Sequence[FloatArray]) -> tuple[float, float]:
    return min(0.0, *(float(row.min()) for row in rows)), max(float(row.max()) for row in rows)


def _areas(
    matrix: ScoreMatrix, methods: Mapping[str, Sequence[BoardEntry]], rows: Mapping[str, FloatArray]
) -> dict[str, stats.Interval]:
    """Return the areas as shares of full depth's, with intervals; no bound is wider than the curve that was run."""
    widths = {}
    for label, entries in methods.items():
        start = min(entry.costs["total"] for entry in entries)
        widths[label] = (AREA[1] - min(max(start, AREA[0]), AREA[1])) / (AREA[1] - AREA[0])
    kept = matrix.kept([rows[label] / (width or 1.0) for label, width in widths.items()])
    return {
        label: stats.Interval(width * estimate, width * low, width * high)
        for (label, width), (estimate, low, high) in zip(widths.items(), kept, strict=False)
    }


def _area_rows(matrix: ScoreMatrix, entries: Sequence[BoardEntry]) -> FloatArray:
    """Return the area under a method's curve by document, ÷ its width: linear in the scores, so documents add up.

    The curve is piecewise linear over total FLOPs, ends in full depth at 1, and is 0 below the cheapest row.
    """
    assert matrix.full is not None
    seeds = min(len(matrix.rows[entry.id]) for entry in entries)
    points = sorted((entry.costs["total"], entry.id) for entry in entries if entry.costs["total"] < AREA[1])
    knots = [(cost, matrix.rows[id_][:seeds]) for cost, id_ in points]
    knots.append((AREA[1], np.broadcast_to(matrix.full, (seeds, matrix.full.size))))
    area = np.zeros((seeds, matrix.full.size))
    for (left, before), (right, after) in pairwise(knots):
        start, end = max(left, AREA[0]), right
        if end <= start:
            continue
        entering = before + (after - before) * ((start - left) / (right - left))
        area += (end - start) * (entering + after) / 2
    return area / (AREA[1] - AREA[0])
