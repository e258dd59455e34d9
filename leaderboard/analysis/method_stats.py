"""Methods over all budgets: the area under their curves, the compute that is enough, the gap that they close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dlbench import stats
from dlbench.leaderboard.analysis.enough import Enough, enough_of
from dlbench.leaderboard.analysis.gap_closed import GapCurves, gaps
from dlbench.leaderboard.analysis.ranking import RankedPlace, competitors, ranked_places
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, series
from dlbench.stats.resample import FloatArray

COST = "decode"
"""The cost over which areas are taken: FLOPs of decoding, which are what routing acts on."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A method over all budgets.

    Attributes:
        place: by area, among methods that ran at all budgets; a control has none.
        area: mean share of full's quality along its curve, over the decoding FLOPs that all such methods cover.
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

    Areas are taken over the costs that all of them cover, controls among them; no curve is extrapolated. A method that
    never costs less than full depth has no area, and does not narrow those of others.

    A row that missed its budget stands for no budget, but is a setting like any other where the question is what is
    enough.
    """
    view = matrix.view
    budgets = {entry.budget for entry in view.of("method") if entry.budget is not None}
    ran = series(entry for entry in view.of("method") if entry.retained is not None)
    methods = series(entry for several in ran.values() for entry in several if entry.ok)
    curves = {
        label: stats.Curve([matrix.point(entry, COST) for entry in entries])
        for label, entries in methods.items()
        if all(entry.id in matrix.rows and COST in entry.costs for entry in entries)
        and {entry.budget for entry in entries} >= budgets
        and min(entry.costs[COST] for entry in entries) < 1
    }
    ranked = {entry.label for entry in competitors(view.entries)}
    rows = _area_rows(matrix, curves, {label: methods[label] for label in curves})
    places = _places(matrix, {label: row for label, row in rows.items() if label in ranked})
    areas = {label: stats.Interval(*kept) for label, kept in zip(rows, matrix.kept(list(rows.values())), strict=False)}
    gap_curves = GapCurves(matrix)
    summaries = [
        Summary(
            label=label,
            method=entries[0].method,
            kind=kind_of(entries[0]),
            place=places.get(label),
            area=areas.get(label),
            enough={target: enough_of(matrix, entries, target) for target in (0.95, 0.99)},
            kept={
                one.budget: one.retained
                for one in entries
                if one.ok and one.budget is not None and one.retained is not None
            },
            gaps=gaps(gap_curves, entries),
        )
        for label, entries in ran.items()
    ]
    return tuple(sorted(summaries, key=lambda one: (one.place is None, one.place.rank if one.place else 0, one.label)))


def _area_rows(
    matrix: ScoreMatrix, curves: Mapping[str, stats.Curve], methods: Mapping[str, Sequence[BoardEntry]]
) -> dict[str, FloatArray]:
    """Return by document what each method keeps on average over the costs that all cover; of one budget, at it."""
    if span := common_span(list(curves.values())):
        return {label: curve.heights(*span) for label, curve in curves.items()}
    if any(len(entries) > 1 for entries in methods.values()):
        return {}
    return {label: matrix.rows[entry.id] for label, (entry,) in methods.items()}


def common_span(curves: Sequence[stats.Curve]) -> tuple[float, float] | None:
    """Return the least and the greatest cost that all curves cover; None where that span has no width."""
    if not curves:
        return None
    low, high = max(curve.span[0] for curve in curves), min(curve.span[1] for curve in curves)
    return (low, high) if low < high else None


def _places(matrix: ScoreMatrix, rows: Mapping[str, FloatArray]) -> dict[str, RankedPlace]:
    """Return the places of methods by their areas."""
    if not rows:
        return {}
    areas = list(rows.values())
    bounds = min(0.0, *(float(row.min()) for row in areas)), max(float(row.max()) for row in areas)
    return dict(zip(rows, ranked_places(stats.Table(areas, bounds=bounds, clusters=matrix.clusters)), strict=True))
