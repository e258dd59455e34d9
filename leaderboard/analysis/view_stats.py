"""The statistics of a view: intervals, ranks with ties, frontiers with bands, and which rows are on the frontier."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlbench import stats
from dlbench.leaderboard.analysis.axis_verdict import AxisVerdict, axis_verdicts
from dlbench.leaderboard.analysis.enough import BestEnough, best_enough
from dlbench.leaderboard.analysis.frontier_curve import FrontierCurve, Frontiers
from dlbench.leaderboard.analysis.gap_closed import BestGap, best_gap
from dlbench.leaderboard.analysis.method_stats import Summary, summarise
from dlbench.leaderboard.analysis.ranking import RankedPlace, competitors, ranked_places
from dlbench.leaderboard.analysis.score_matrix import Compared, ScoreMatrix
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, series
from dlbench.leaderboard.data.run_files import NO_SOURCES, Scores, Sources
from dlbench.leaderboard.data.views import BoardView

GRID = 17
"""Costs at which a frontier is drawn."""
SAME_COST = 0.01
"""Costs that differ by no more, in shares of full's, count as equal where it is asked which row is on the front."""


@dataclass(frozen=True, slots=True)
class Standings:
    """The statistics of a view; what its records do not allow is missing.

    Attributes:
        compared: the rows that are tested against each other, with these tests.
        bounds: entry → interval of what is kept, where its record alone does not say.
        places: entry → rank among the rows of its budget.
        fronts: entry → whether it is on the front of total FLOPs as measured, and how likely it is.
        axis_fronts: axis → the entries that are on the front of that cost, as measured.
        verdicts: axis → who keeps most at half of full's cost, what is enough, and what there is to beat.
        frontiers: axis → the best of the methods, and of the controls, at every cost.
        summaries: per method, best first.
        enough: of one task, the method that surely keeps 95 % of full's quality at the fewest FLOPs.
        gap: of one task, the method that closes most of the gap to the honest oracle near half of the layers.
    """

    compared: Compared | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    places: Mapping[str, RankedPlace] = field(default_factory=dict)
    fronts: Mapping[str, tuple[bool, float | None]] = field(default_factory=dict)
    axis_fronts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    verdicts: Mapping[str, AxisVerdict] = field(default_factory=dict)
    frontiers: Mapping[str, Frontiers] = field(default_factory=dict)
    summaries: tuple[Summary, ...] = ()
    enough: BestEnough | None = None
    gap: BestGap | None = None

    def bounds_of(self, entry: BoardEntry) -> tuple[float, float] | None:
        """Return the 95 % interval of what an entry keeps: its record's own, or that of all its records together."""
        return entry.bounds or self.bounds.get(entry.id)


def standings(view: BoardView, scores: Scores, sources: Sources = NO_SOURCES) -> Standings:
    """Work out the statistics of a view.

    Args:
        view: whose entries.
        scores: record key → document id → score.
        sources: track → document id → source, of documents that have one.
    """
    matrix = ScoreMatrix(view, scores, sources)
    if not matrix.rows or matrix.full is None:
        return Standings(fronts=_fronts(view, None), axis_fronts=_axis_fronts(view), verdicts=axis_verdicts(view, None))
    return Standings(
        compared=matrix.compared,
        bounds=_bounds(matrix),
        places=_places(matrix),
        fronts=_fronts(view, matrix),
        axis_fronts=_axis_fronts(view),
        verdicts=axis_verdicts(view, matrix),
        frontiers=_frontiers(matrix),
        summaries=summarise(matrix),
        enough=None if view.suite else best_enough(matrix),
        gap=None if view.suite else best_gap(matrix),
    )


def _bounds(matrix: ScoreMatrix) -> dict[str, tuple[float, float]]:
    if matrix.independent < stats.FEWEST_DOCUMENTS:
        return {}
    wanted = [entry for entry in matrix.entries if entry.bounds is None and entry.role != "full"]
    kept = matrix.kept([matrix.rows[entry.id] for entry in wanted])
    bounds = {entry.id: (low, high) for entry, (_, low, high) in zip(wanted, kept, strict=False)}
    # Of itself full depth keeps all.
    return bounds | {entry.id: (1.0, 1.0) for entry in matrix.view.of("full") if entry.retained is not None}


def _places(matrix: ScoreMatrix) -> dict[str, RankedPlace]:
    places: dict[str, RankedPlace] = {}
    by_budget: dict[float, list[BoardEntry]] = {}
    for entry in competitors(matrix.view.entries):
        if entry.budget is not None and entry.id in matrix.rows:
            by_budget.setdefault(entry.budget, []).append(entry)
    for same in by_budget.values():
        places |= dict(zip([entry.id for entry in same], ranked_places(matrix.table(same)), strict=True))
    return places


def _fronts(view: BoardView, matrix: ScoreMatrix | None) -> dict[str, tuple[bool, float | None]]:
    """Return which entries are on the frontier of total FLOPs and quality, among deployable rows of this backbone.

    The smaller dense model is left out: where it beats every row, no row would be on the frontier.
    """
    entries = _candidates(view, "total")
    on = _on_front(entries, "total")
    likely: dict[str, float] = {}
    if matrix is not None:
        known = [entry for entry in entries if entry.id in matrix.rows]
        open_ = [entry for entry in known if not _surely_beaten(matrix, entry, known)]
        likely = {entry.id: 0.0 for entry in known}
        points = [matrix.point(entry, "total") for entry in open_]
        chances = stats.pareto_probability(points, slack=SAME_COST, clusters=matrix.clusters)
        likely |= {entry.id: float(chance) for entry, chance in zip(open_, chances, strict=True)}
    return {entry.id: (entry.id in on, likely.get(entry.id)) for entry in entries}


def _axis_fronts(view: BoardView) -> dict[str, frozenset[str]]:
    """Return, per axis, the entries that are on the frontier of that cost and quality as measured."""
    return {axis.key: _on_front(_candidates(view, axis.key), axis.key) for axis in view.axes}


def _candidates(view: BoardView, axis: str) -> list[BoardEntry]:
    return [
        entry for entry in view.of("full", "method") if entry.ok and axis in entry.costs and entry.retained is not None
    ]


def _on_front(entries: Sequence[BoardEntry], axis: str) -> frozenset[str]:
    """Return the entries that no other beats as measured: by more at its cost or less, or by as much for less."""
    kept = np.array([entry.retained for entry in entries], dtype=np.float64)
    cost = np.array([entry.costs[axis] for entry in entries], dtype=np.float64)
    more, as_much = kept[:, None] > kept, kept[:, None] >= kept  # [other, entry]
    beats = (more & (cost[:, None] <= cost + SAME_COST)) | (as_much & (cost[:, None] < cost))
    beaten = np.asarray(beats.any(axis=0))
    return frozenset(entry.id for entry, lost in zip(entries, beaten, strict=True) if not lost)


def _surely_beaten(matrix: ScoreMatrix, entry: BoardEntry, others: Iterable[BoardEntry]) -> bool:
    """Return whether a row of no greater or the same cost is surely better; then leaving this out changes nothing."""
    number = matrix.compared.place
    here = number.get(entry.id)
    if here is None:
        return False
    pairs = matrix.compared.pairs
    return any(
        pairs.different[place, here] and pairs.estimate[place, here] > 0
        for one in others
        if one.costs["total"] <= entry.costs["total"] + SAME_COST and (place := number.get(one.id)) is not None
    )


def _frontiers(matrix: ScoreMatrix) -> Mapping[str, Frontiers]:
    """Return, per axis, the upper edge of the curves of the methods, and of the controls."""
    edges = {
        (axis.key, name): edge
        for axis in matrix.view.axes
        for name, kind in (("methods", "method"), ("controls", "control"))
        if len(edge := _edge(matrix, kind, axis.key)) > 1
    }
    kept = iter(matrix.kept([np.atleast_2d(point.scores) for edge in edges.values() for point in edge]))
    frontiers: dict[str, dict[str, FrontierCurve]] = {}
    for (axis_key, name), edge in edges.items():
        bounded = [next(kept, None) for _ in edge]
        if None not in bounded:
            ys, lows, highs = zip(*filter(None, bounded), strict=True)
            frontiers.setdefault(axis_key, {})[name] = FrontierCurve([point.cost for point in edge], ys, lows, highs)
    return frontiers


def _edge(matrix: ScoreMatrix, kind: str, axis: str) -> list[stats.Point]:
    """Return, at costs from the least to the greatest, the point of the curve that keeps most there."""
    entries = [one for one in matrix.entries if kind_of(one) == kind and one.ok and axis in one.costs]
    curves = [
        stats.Curve([matrix.point(entry, axis) for entry in settings])
        for settings in series(entries).values()
        if len({entry.costs[axis] for entry in settings}) > 1
    ]
    if not curves:
        return []
    # Where a curve begins or ends the edge may step, so these costs are on the grid.
    ends = [cost for curve in curves for cost in curve.span]
    edge: list[stats.Point] = []
    for cost in sorted({*np.linspace(min(ends), max(ends), GRID).tolist(), *ends}):
        there = [point for curve in curves if (point := curve.at(min(cost, curve.span[1]))) is not None]
        # At a greater cost the best of a smaller one is still available.
        best = max([*there, *edge[-1:]], key=lambda point: float(np.asarray(point.scores).mean()))
        edge.append(stats.Point(cost, best.scores))
    while len(edge) > 1 and edge[-1].scores is edge[-2].scores:
        edge.pop()  # nothing is gained there
    return edge
