"""What the statistics say of a view: intervals, ranks with ties, frontiers with bands, who is on the front.

All of it is in shares of full depth's quality. A row's scores are divided by the mean of full depth's under the same
scoring, so that rows of several tasks, and an oracle that is scored on other references, can stand side by side. Over
several tasks the documents of all are taken together, each weighted so that every task counts the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from dlbench import stats
from dlbench.leaderboard.chart import Curve, Frontiers
from dlbench.leaderboard.looks import kind_of
from dlbench.leaderboard.runs import Scores
from dlbench.leaderboard.tracks import Row
from dlbench.leaderboard.views import Entry, View
from dlbench.stats.resample import FloatArray

RERUN = frozenset({"rerun", "reproduced"})
AREA = (0.2, 1.0)
"""Total FLOPs, as shares of full's, over which the area under a method's curve is taken."""
GRID = 17
"""Costs at which a frontier is drawn."""


@dataclass(frozen=True, slots=True)
class Place:
    """A rank among rows that compete, with the ranks that the data leave open.

    Attributes:
        letters: rows that share one cannot be told apart.
        shade: whether its first group is an odd one, to colour by.
    """

    rank: int
    low: int
    high: int
    letters: str
    shade: bool


@dataclass(frozen=True, slots=True)
class Enough:
    """The least cost that keeps a share of the quality beyond doubt: of the layers, and of the FLOPs."""

    layers: float | None
    total: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A method over all budgets.

    Attributes:
        place: by area, among methods that ran at all budgets.
        area: under its curve over `AREA`, 1 at full depth's quality throughout; nothing is kept below its cheapest row.
        enough: by the share of full's quality that is asked for.
        kept: by budget.
        gaps: share of the honest oracle's gap closed, by budget.
    """

    label: str
    method: str
    kind: str
    place: Place | None
    area: stats.Interval | None
    enough: Mapping[float, Enough]
    kept: Mapping[float, float]
    gaps: Mapping[float, stats.Interval]


@dataclass(frozen=True, slots=True)
class Standings:
    """The statistics of a view; what its records do not allow is missing.

    Attributes:
        scores: what all of it comes from.
        bounds: entry → interval of what is kept, where its record alone does not say.
        places: entry → rank among the rows of its budget.
        fronts: entry → whether it is on the front as measured, and how likely it is.
        frontiers: axis → the best of the methods, and of the controls, at every cost.
        summaries: per method, best first.
    """

    scores: Field | None = None
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    places: Mapping[str, Place] = field(default_factory=dict)
    fronts: Mapping[str, tuple[bool, float | None]] = field(default_factory=dict)
    frontiers: Mapping[str, Frontiers] = field(default_factory=dict)
    summaries: tuple[Summary, ...] = ()


class Field:
    """The scores of a view's entries over its documents, in shares of full depth's quality.

    Args:
        view: whose entries.
        scores: record key → document id → score.
    """

    def __init__(self, view: View, scores: Scores) -> None:
        self.view = view
        self.documents: list[str] = []
        self._parts: list[tuple[list[str], float]] = []
        total = 0
        for place, track in enumerate(view.tracks):
            ids = _common(view, place, scores)
            self._parts.append((ids, float(len(ids))))
            self.documents += [f"{track.task.name}: {one}" if view.suite else one for one in ids]
            total += len(ids)
        # A task's documents together weigh as much as any other task's.
        self._weights = [total / (len(view.tracks) * max(1.0, count)) for _, count in self._parts]
        self.rows: dict[str, FloatArray] = {}
        for entry in view.entries:
            if (row := self._row(entry, scores)) is not None:
                self.rows[entry.id] = row
        self.entries = [entry for entry in view.entries if entry.id in self.rows]

    def _row(self, entry: Entry, scores: Scores) -> FloatArray | None:
        """Return an entry's scores, [seeds, documents]; None where they are not there, or not those of its record."""
        parts = []
        for place, rows in enumerate(entry.rows):
            ids = self._parts[place][0]
            chosen = rows[: entry.repeats]
            if not ids or not all(_trusted(row, scores) for row in chosen):
                return None
            by_seed = [
                [scores[row.record.key].get(one, np.nan) / _full(row) for one in ids] for row in chosen
            ]
            parts.append(np.array(by_seed) * self._weights[place])
        found = np.concatenate(parts, axis=1)
        return found if np.isfinite(found).all() else None

    @cached_property
    def full(self) -> FloatArray | None:
        """Full depth's scores, [documents]."""
        found = [self.rows[entry.id] for entry in self.entries if entry.role == "full"]
        return found[0].mean(axis=0) if found else None

    def limits(self, rows: Iterable[FloatArray]) -> tuple[float, float]:
        """Return the least and the greatest score that there can be among such rows."""
        if self.view.suite:
            every = list(rows)
            return min(0.0, *(float(row.min()) for row in every)), max(float(row.max()) for row in every)
        scale = self._weights[0] / _full(self.view.entries[0].first)
        least = min(float(row.min()) for row in rows)
        greatest = max(float(row.max()) for row in rows)
        top = 1.0 if greatest <= scale * (1 + 1e-9) else 100.0
        return min(0.0, least), max(top * scale, greatest)

    def table(self, entries: Sequence[Entry]) -> stats.Table:
        """Return entries as a table of the statistics."""
        rows = [self.rows[entry.id] for entry in entries]
        return stats.Table(rows, bounds=self.limits(rows))

    def kept(self, rows: Sequence[FloatArray]) -> list[tuple[float, float, float]]:
        """Return what each of several rows keeps of full depth, between its bounds; all rows are resampled at once.

        A curve over the rows' numbers is what bounds many rows together.
        """
        if not rows or self.full is None:
            return []
        points = [stats.Point(float(number), row) for number, row in enumerate(rows)]
        band = stats.Curve(points, bounds=self.limits(rows)).band(range(len(rows)), full=self.full)
        return list(zip(band.estimate.tolist(), band.low.tolist(), band.high.tolist(), strict=True))

    def point(self, entry: Entry, axis: str) -> stats.Point:
        """Return an entry as a point of a curve over a cost."""
        return stats.Point(entry.costs[axis], self.rows[entry.id])


def _common(view: View, place: int, scores: Scores) -> list[str]:
    """Return the documents of a task that the most rows have: normally all of them, and the same."""
    counts: dict[frozenset[str], int] = {}
    for entry in view.entries:
        for row in entry.rows[place]:
            if row.record.key in scores:
                ids = frozenset(scores[row.record.key])
                counts[ids] = counts.get(ids, 0) + 1
    best = min(counts, key=lambda ids: (-counts[ids], -len(ids), sorted(ids)[:1]), default=frozenset())
    return sorted(best)


def _full(row: Row) -> float:
    quality = row.record.quality
    return (quality.full_mean or 1.0) if quality else 1.0


def _trusted(row: Row, scores: Scores) -> bool:
    """Whether the published scores are those that the record's mean was taken of."""
    found, quality = scores.get(row.record.key), row.record.quality
    if not found or quality is None or len(found) != row.record.task.n:
        return False
    return abs(sum(found.values()) / len(found) - quality.mean) <= 1e-6 * max(1.0, abs(quality.mean))


def standings(view: View, scores: Scores) -> Standings:
    """Work out the statistics of a view."""
    found = Field(view, scores)
    if not found.rows or found.full is None:
        return Standings(fronts=_fronts(view, None))
    return Standings(
        scores=found,
        bounds=_bounds(found),
        places=_places(found),
        fronts=_fronts(view, found),
        frontiers=_frontiers(found),
        summaries=_summaries(found),
    )


def _bounds(found: Field) -> dict[str, tuple[float, float]]:
    wanted = [entry for entry in found.entries if entry.bounds is None]
    kept = found.kept([found.rows[entry.id] for entry in wanted])
    return {entry.id: (low, high) for entry, (_, low, high) in zip(wanted, kept, strict=False)}


def competitors(entries: Iterable[Entry]) -> list[Entry]:
    """Return those that are ranked: what was rerun, if anything was; rows that were not never stand among them."""
    found = [entry for entry in entries if entry.role == "method" and entry.ok]
    rerun = [entry for entry in found if entry.trust in RERUN]
    return rerun or found


def _places(found: Field) -> dict[str, Place]:
    places: dict[str, Place] = {}
    ranked = competitors(found.view.entries)
    by_budget: dict[float, list[Entry]] = {}
    for entry in ranked:
        if entry.budget is not None and entry.id in found.rows:
            by_budget.setdefault(entry.budget, []).append(entry)
    for same in by_budget.values():
        places |= dict(zip([entry.id for entry in same], ranked_places(found.table(same)), strict=True))
    return places


def ranked_places(table: stats.Table) -> list[Place]:
    """Return the place of every row of a table."""
    letters = stats.letters(table.groups, len(table.means))
    order = sorted(range(len(letters)), key=lambda row: (-table.means[row], letters[row]))
    shades: dict[str, bool] = {}
    for row in order:
        shades.setdefault(letters[row], len(shades) % 2 == 0)
    alone = {letter for letter in letters if letters.count(letter) == 1 and len(letter) == 1}
    return [
        Place(rank.rank, rank.low, rank.high, "" if letters[row] in alone else letters[row], shades[letters[row]])
        for row, rank in enumerate(table.ranks)
    ]


def _fronts(view: View, found: Field | None) -> dict[str, tuple[bool, float | None]]:
    """Return who is on the front of total FLOPs and quality, among what can be deployed on this backbone.

    The smaller dense model stands apart: where it beats everything, there would be nothing left to tell.
    """
    entries = [
        entry
        for entry in view.of("full", "method")
        if entry.ok and "total" in entry.costs and entry.retained is not None
    ]
    best = -np.inf
    on: set[str] = set()
    for entry in sorted(entries, key=lambda one: (one.costs["total"], -(one.retained or 0.0))):
        if (entry.retained or 0.0) > best:
            best = entry.retained or 0.0
            on.add(entry.id)
    likely: dict[str, float] = {}
    if found is not None:
        known = [entry for entry in entries if entry.id in found.rows]
        chances = stats.pareto_probability([found.point(entry, "total") for entry in known])
        likely = {entry.id: float(chance) for entry, chance in zip(known, chances, strict=True)}
    return {entry.id: (entry.id in on, likely.get(entry.id)) for entry in entries}


def _series(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.label, []).append(entry)
    return found


def _frontiers(found: Field) -> dict[str, Frontiers]:
    """Return, per axis, the upper edge of the curves of the methods, and of the controls."""
    edges = {
        (axis.key, name): edge
        for axis in found.view.axes
        for name, kind in (("methods", "method"), ("controls", "control"))
        if len(edge := _edge(found, kind, axis.key)) > 1
    }
    kept = iter(found.kept([point.scores for edge in edges.values() for point in edge]))
    frontiers: dict[str, dict[str, Curve]] = {}
    for (axis_key, name), edge in edges.items():
        found_here = [next(kept, None) for _ in edge]
        if None not in found_here:
            ys, lows, highs = zip(*filter(None, found_here), strict=True)
            frontiers.setdefault(axis_key, {})[name] = Curve([point.cost for point in edge], ys, lows, highs)
    return frontiers


def _edge(found: Field, kind: str, axis: str) -> list[stats.Point]:
    """Return, at costs from the least to the greatest, the point of the curve that keeps most there."""
    entries = [one for one in found.entries if kind_of(one) == kind and one.ok and axis in one.costs]
    curves = [
        stats.Curve([found.point(entry, axis) for entry in series])
        for series in _series(entries).values()
        if len({entry.costs[axis] for entry in series}) > 1
    ]
    if not curves:
        return []
    # Where a curve begins or ends the edge may step, so these costs are on the grid.
    ends = [cost for curve in curves for cost in curve.span]
    edge: list[stats.Point] = []
    for cost in sorted({*np.linspace(min(ends), max(ends), GRID).tolist(), *ends}):
        there = [point for curve in curves if (point := curve.at(min(cost, curve.span[1]))) is not None]
        # Who can pay more can still take what costs less.
        best = max([*there, *edge[-1:]], key=lambda point: float(np.mean(point.scores)))
        edge.append(stats.Point(cost, best.scores))
    while len(edge) > 1 and edge[-1].scores is edge[-2].scores:
        edge.pop()  # nothing is gained there
    return edge


def _summaries(found: Field) -> tuple[Summary, ...]:
    view = found.view
    budgets = {entry.budget for entry in view.of("method") if entry.budget is not None}
    series = _series(entry for entry in view.of("method") if entry.ok and entry.retained is not None)
    areas: dict[str, FloatArray] = {}
    for label, entries in series.items():
        if all(entry.id in found.rows and "total" in entry.costs for entry in entries):
            areas[label] = _area_rows(found, entries)
    complete = [label for label in areas if {entry.budget for entry in series[label]} >= budgets]
    ranked = {entry.label for entry in competitors(view.entries)}
    compete = [label for label in complete if label in ranked]
    places: dict[str, Place] = {}
    if compete:
        rows = [areas[label] for label in compete]
        places = dict(zip(compete, ranked_places(stats.Table(rows, bounds=_span(rows))), strict=True))
    heights = dict(zip(complete, found.kept([areas[label] for label in complete]), strict=False))
    summaries = [
        _summary(
            found,
            label,
            entries,
            stats.Interval(*heights[label]) if label in heights else None,
            places.get(label),
        )
        for label, entries in series.items()
    ]
    return tuple(sorted(summaries, key=lambda one: (one.place is None, one.place.rank if one.place else 0, one.label)))


def _span(rows: Sequence[FloatArray]) -> tuple[float, float]:
    return min(0.0, *(float(row.min()) for row in rows)), max(float(row.max()) for row in rows)


def _area_rows(found: Field, entries: Sequence[Entry]) -> FloatArray:
    """Return the area under a method's curve by document, ÷ its width: linear in the scores, so documents add up.

    The curve is piecewise linear over total FLOPs, ends in full depth at 1, and is 0 below the cheapest row.
    """
    assert found.full is not None
    seeds = min(len(found.rows[entry.id]) for entry in entries)
    points = sorted((entry.costs["total"], entry.id) for entry in entries if entry.costs["total"] < AREA[1])
    knots = [(cost, found.rows[id_][:seeds]) for cost, id_ in points]
    knots.append((AREA[1], np.broadcast_to(found.full, (seeds, found.full.size))))
    area = np.zeros((seeds, found.full.size))
    for (left, before), (right, after) in zip(knots, knots[1:], strict=False):
        start, end = max(left, AREA[0]), right
        if end <= start:
            continue
        entering = before + (after - before) * ((start - left) / (right - left))
        area += (end - start) * (entering + after) / 2
    return area / (AREA[1] - AREA[0])


def _summary(
    found: Field, label: str, entries: Sequence[Entry], area: stats.Interval | None, place: Place | None
) -> Summary:
    known = [entry for entry in entries if entry.id in found.rows]
    enough = {target: _enough(found, known, target) for target in (0.95, 0.99)}
    return Summary(
        label=label,
        method=entries[0].method,
        kind=kind_of(entries[0]),
        place=place,
        area=area,
        enough=enough,
        kept={entry.budget: entry.retained for entry in entries if entry.budget is not None and entry.retained},
        gaps=_gaps(found, known),
    )


def _enough(found: Field, entries: Sequence[Entry], target: float) -> Enough:
    assert found.full is not None
    by_cost = {entry.costs["total"]: entry for entry in entries if "total" in entry.costs}
    if not by_cost:
        return Enough(None, None, "its documents are not published")
    points = [found.point(entry, "total") for entry in by_cost.values()]
    limits = found.limits([found.rows[entry.id] for entry in by_cost.values()] + [found.full[None]])
    least = stats.compute_at(points, found.full, target, bounds=limits)
    if least.cost is None:
        return Enough(None, None, least.reason)
    return Enough(by_cost[least.cost].costs.get("layers"), least.cost, "")


def _gaps(found: Field, entries: Sequence[Entry]) -> dict[float, stats.Interval]:
    """Return the share of the oracle's gap over random routing that is closed, at each row's realised layers."""
    oracle = _honest(found)
    random = [one for one in found.entries if one.method == "random_skip" and one.ok and "layers" in one.costs]
    control = next(iter(sorted(_series(random).items(), key=lambda one: ("token" not in one[0], one[0]))), None)
    if not oracle or control is None:
        return {}
    ceiling, floor = (stats.Curve([found.point(one, "layers") for one in series]) for series in (oracle, control[1]))
    gaps = {}
    for entry in entries:
        cost = entry.costs.get("layers")
        if entry.budget is None or cost is None or entry.label == control[0]:
            continue
        top, bottom = (curve.at(min(max(cost, curve.span[0]), curve.span[1])) for curve in (ceiling, floor))
        # Half a layer of slack: a budget of a quarter is met at 0.243 by one method and at 0.25 by another.
        if top is None or bottom is None or max(abs(top.cost - cost), abs(bottom.cost - cost)) > 0.04:
            continue
        rows = [found.rows[entry.id], np.atleast_2d(bottom.scores), np.atleast_2d(top.scores)]
        closed = stats.gap_closed(*rows, bounds=found.limits(rows))
        if closed is not None:
            gaps[entry.budget] = closed
    return gaps


def _honest(found: Field) -> list[Entry]:
    """Return the rows of the honest oracle: the one that is scored on references that it did not choose by."""
    return [one for one in found.entries if one.method == "oracle_cross" and "layers" in one.costs]
