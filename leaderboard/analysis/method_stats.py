"""Methods over all budgets: the area under their curves, the compute that is enough, the oracle's gap closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dlbench import stats
from dlbench.leaderboard.analysis.enough import Enough, SettingScores, enough
from dlbench.leaderboard.analysis.ranking import RankedPlace, competitors, ranked_places
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.data.paired_scores import SLACK, usual
from dlbench.leaderboard.data.views import BoardEntry, kind_of, series
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
        kept: by budget.
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


def summarise(found: ScoreMatrix) -> tuple[Summary, ...]:
    """Return all methods of a view, best first: those that ran at every budget are ranked by their area.

    What missed its budget stands for none, but is a setting like any other where the question is what is enough.
    """
    view = found.view
    budgets = {entry.budget for entry in view.of("method") if entry.budget is not None}
    ran = series(entry for entry in view.of("method") if entry.retained is not None)
    methods = series(entry for several in ran.values() for entry in several if entry.ok)
    areas: dict[str, FloatArray] = {}
    for label, entries in methods.items():
        if all(entry.id in found.rows and "total" in entry.costs for entry in entries):
            areas[label] = _area_rows(found, entries)
    complete = [label for label in areas if {entry.budget for entry in methods[label]} >= budgets]
    ranked = {entry.label for entry in competitors(view.entries)}
    compete = [label for label in complete if label in ranked]
    places: dict[str, RankedPlace] = {}
    if compete:
        rows = [areas[label] for label in compete]
        table = stats.Table(rows, bounds=_span(rows), clusters=found.clusters)
        places = dict(zip(compete, ranked_places(table), strict=True))
    heights = _heights(found, {label: methods[label] for label in complete}, areas)
    summaries = [
        _summary(
            found,
            label,
            entries,
            heights.get(label),
            places.get(label),
        )
        for label, entries in ran.items()
    ]
    return tuple(sorted(summaries, key=lambda one: (one.place is None, one.place.rank if one.place else 0, one.label)))


def _span(rows: Sequence[FloatArray]) -> tuple[float, float]:
    return min(0.0, *(float(row.min()) for row in rows)), max(float(row.max()) for row in rows)


def _heights(
    found: ScoreMatrix, methods: Mapping[str, Sequence[BoardEntry]], areas: Mapping[str, FloatArray]
) -> dict[str, stats.Interval]:
    """Return the areas as shares of full depth's, each between its bounds, which are no farther than its curve goes."""
    widths = {}
    for label, entries in methods.items():
        start = min(entry.costs["total"] for entry in entries)
        widths[label] = (AREA[1] - min(max(start, AREA[0]), AREA[1])) / (AREA[1] - AREA[0])
    kept = found.kept([areas[label] / (width or 1.0) for label, width in widths.items()])
    return {
        label: stats.Interval(width * estimate, width * low, width * high)
        for (label, width), (estimate, low, high) in zip(widths.items(), kept, strict=False)
    }


def _area_rows(found: ScoreMatrix, entries: Sequence[BoardEntry]) -> FloatArray:
    """Return the area under a method's curve by document, ÷ its width: linear in the scores, so documents add up.

    The curve is piecewise linear over total FLOPs, ends in full depth at 1, and is 0 below the cheapest row.
    """
    assert found.full is not None
    seeds = min(len(found.rows[entry.id]) for entry in entries)
    points = sorted((entry.costs["total"], entry.id) for entry in entries if entry.costs["total"] < AREA[1])
    knots = [(cost, found.rows[id_][:seeds]) for cost, id_ in points]
    knots.append((AREA[1], np.broadcast_to(found.full, (seeds, found.full.size))))
    area = np.zeros((seeds, found.full.size))
    for (left, before), (right, after) in pairwise(knots):
        start, end = max(left, AREA[0]), right
        if end <= start:
            continue
        entering = before + (after - before) * ((start - left) / (right - left))
        area += (end - start) * (entering + after) / 2
    return area / (AREA[1] - AREA[0])


def _summary(
    found: ScoreMatrix,
    label: str,
    entries: Sequence[BoardEntry],
    area: stats.Interval | None,
    place: RankedPlace | None,
) -> Summary:
    known = [entry for entry in entries if entry.id in found.rows]
    return Summary(
        label=label,
        method=entries[0].method,
        kind=kind_of(entries[0]),
        place=place,
        area=area,
        enough={target: _enough(found, known, target) for target in (0.95, 0.99)},
        kept={one.budget: one.retained for one in entries if one.ok and one.budget is not None and one.retained},
        gaps=_gaps(found, [one for one in known if one.ok]),
    )


def _enough(found: ScoreMatrix, entries: Sequence[BoardEntry], target: float) -> Enough:
    assert found.full is not None
    if not entries:
        return Enough(None, None, "its documents are not published")
    settings = [
        SettingScores(entry.costs["total"], entry.costs.get("layers"), found.rows[entry.id])
        for entry in entries
        if "total" in entry.costs
    ]
    limits = found.limits([setting.scores for setting in settings] + [found.full[None]])
    return enough(settings, found.full, target, bounds=limits, clusters=found.clusters)


def _gaps(found: ScoreMatrix, entries: Sequence[BoardEntry]) -> dict[float, stats.Interval]:
    """Return the share of the oracle's gap over random routing that is closed, at each row's realised layers."""
    oracle = _honest(found)
    random = [one for one in found.entries if one.method == "random_skip" and one.ok and "layers" in one.costs]
    variants = series(random)
    control = usual(variants)
    if not oracle or control is None:
        return {}
    ceiling, floor = (
        stats.Curve([found.point(one, "layers") for one in several]) for several in (oracle, variants[control])
    )
    gaps = {}
    for entry in entries:
        cost = entry.costs.get("layers")
        if entry.budget is None or cost is None or entry.label == control:
            continue
        top, bottom = (curve.at(cost, slack=SLACK) for curve in (ceiling, floor))
        if top is None or bottom is None:
            continue
        rows = [found.rows[entry.id], np.atleast_2d(bottom.scores), np.atleast_2d(top.scores)]
        closed = stats.gap_closed(*rows, bounds=found.limits(rows), clusters=found.clusters)
        if closed is not None:
            gaps[entry.budget] = closed
    return gaps


def _honest(found: ScoreMatrix) -> list[BoardEntry]:
    """Return the rows of the honest oracle: the one that is scored on references that it did not choose by."""
    return [one for one in found.entries if one.method == "oracle_cross" and "layers" in one.costs]
