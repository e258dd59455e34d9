"""What a view says on one cost axis: who keeps most at half of full depth's cost, how surely, and what stands above it.

Every method is shown by one of its settings: the dearest that costs no more than the mark, which is half of what full
depth costs, or the median of all settings where most methods have nothing so cheap. So the setting is chosen by its
cost alone and never by its score, every figure is one of a setting that ran, and on another axis other settings may
stand for the methods, and another method may rank first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median

from dlbench.leaderboard.analysis.enough import EnoughSetting, enough_setting
from dlbench.leaderboard.analysis.ranking import RankedPlace, competitors, ranked_places
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, series, shown
from dlbench.leaderboard.data.views import BoardView

HALF = 0.5
"""Share of full depth's cost at which methods are shown, where half of them have a setting so cheap."""
NEAR = 0.03
"""How much more than the mark a setting may cost, since no method meets a budget exactly."""


@dataclass(frozen=True, slots=True)
class Versus:
    """A setting against another, over the same documents.

    Attributes:
        estimate, low, high: difference in shares of full depth's quality, with its 95 % interval.
        verdict: 1 where it is surely better, −1 where the other is, 0 where the data leave that open.
    """

    other: BoardEntry
    estimate: float
    low: float
    high: float
    verdict: int


@dataclass(frozen=True, slots=True)
class AxisVerdict:
    """What a view says on one cost axis.

    Attributes:
        mark: share of full depth's cost at which methods are shown; None where none is so cheap as full depth.
        chosen: method or control → the setting that stands for it; those without one are missing.
        least: methods without a setting at the mark → what their cheapest costs.
        places: method → its rank among those that are ranked.
        best: the setting that ranks first.
        second: it against the next.
        bar: what a method has to beat: the smaller dense model, else the control that keeps most at the mark.
        beats_bar: the best against it.
        enough: the cheapest setting of any method that surely keeps 95 % of full depth's quality.
        nearest: of the methods' settings cheaper than full depth, the one that keeps most.
    """

    mark: float | None = None
    chosen: Mapping[str, BoardEntry] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    places: Mapping[str, RankedPlace] = field(default_factory=dict)
    best: BoardEntry | None = None
    second: Versus | None = None
    bar: BoardEntry | None = None
    beats_bar: Versus | None = None
    enough: EnoughSetting = field(default_factory=EnoughSetting)
    nearest: BoardEntry | None = None


def axis_verdicts(view: BoardView, matrix: ScoreMatrix | None) -> dict[str, AxisVerdict]:
    """Return the verdict on every axis of a view; without published scores, without ranks and comparisons."""

    @cache  # on several axes the same settings stand for the methods
    def ranked(ids: tuple[str, ...]) -> Sequence[RankedPlace]:
        assert matrix is not None
        by_id = {entry.id: entry for entry in view.entries}
        return ranked_places(matrix.table([by_id[one] for one in ids]))

    return {axis.key: _verdict(view, matrix, axis.key, ranked) for axis in view.axes}


def _verdict(
    view: BoardView,
    matrix: ScoreMatrix | None,
    axis: str,
    ranked: Callable[[tuple[str, ...]], Sequence[RankedPlace]],
) -> AxisVerdict:
    methods = _settings(competitors(view.entries), axis)
    controls = _settings([entry for entry in view.entries if kind_of(entry) == "control"], axis)
    mark = _mark(methods, axis)
    chosen = {} if mark is None else _at(methods, axis, mark)
    stood = {} if mark is None else _at(controls, axis, mark)
    known = [entry for entry in chosen.values() if matrix is not None and entry.id in matrix.rows]
    places = (
        dict(zip([one.label for one in known], ranked(tuple(one.id for one in known)), strict=True)) if known else {}
    )
    order = sorted(chosen.values(), key=lambda one: _order(one, places))
    best = next((entry for entry in order if entry.retained is not None), None)
    second = next((entry for entry in order[1:] if entry.retained is not None), None)
    bar = _bar(view, stood, axis, mark)
    return AxisVerdict(
        mark=mark,
        chosen=chosen | stood,
        least={
            label: min(one.costs[axis] for one in entries)
            for label, entries in {**methods, **controls}.items()
            if label not in chosen and label not in stood
        },
        places=places,
        best=best,
        second=_versus(matrix, best, second),
        bar=bar,
        beats_bar=_versus(matrix, best, bar),
        enough=EnoughSetting() if matrix is None else enough_setting(matrix, axis),
        nearest=max(
            (
                one
                for several in methods.values()
                for one in several
                if one.costs[axis] < 1 and one.retained is not None
            ),
            key=lambda one: (one.retained or 0.0, -one.costs[axis]),
            default=None,
        ),
    )


def _settings(entries: Sequence[BoardEntry], axis: str) -> dict[str, list[BoardEntry]]:
    return series(entry for entry in entries if shown(entry) and axis in entry.costs)


def _mark(methods: Mapping[str, Sequence[BoardEntry]], axis: str) -> float | None:
    if methods and 2 * len(_at(methods, axis, HALF)) >= len(methods):
        return HALF
    costs = [entry.costs[axis] for entries in methods.values() for entry in entries]
    middle = min(1.0, round(median(costs), 2)) if costs else None
    return middle if middle is not None and _at(methods, axis, middle) else None


def _at(methods: Mapping[str, Sequence[BoardEntry]], axis: str, mark: float) -> dict[str, BoardEntry]:
    """Return the dearest setting of each method that costs no more than the mark."""
    affordable = {
        label: [entry for entry in entries if entry.costs[axis] <= mark + NEAR] for label, entries in methods.items()
    }
    return {label: max(some, key=lambda one: (one.costs[axis], one.id)) for label, some in affordable.items() if some}


def _order(entry: BoardEntry, places: Mapping[str, RankedPlace]) -> tuple[bool, int, float, str]:
    place = places.get(entry.label)
    return place is None, place.rank if place else 0, -(entry.retained or 0.0), entry.label


def _bar(view: BoardView, controls: Mapping[str, BoardEntry], axis: str, mark: float | None) -> BoardEntry | None:
    """Return the smaller dense model whose cost is nearest to the mark, else the control that keeps most."""
    dense = [entry for entry in _known(view.of("dense")) if axis in entry.costs]
    if dense:
        return min(dense, key=lambda one: (abs(one.costs[axis] - (mark or 0.5)), one.id))
    return max(_known(controls.values()), key=lambda one: (one.retained or 0.0, one.id), default=None)


def _known(entries: Iterable[BoardEntry]) -> list[BoardEntry]:
    return [entry for entry in entries if shown(entry) and entry.retained is not None]


def _versus(matrix: ScoreMatrix | None, one: BoardEntry | None, other: BoardEntry | None) -> Versus | None:
    """Return a setting against another, by the tests of all rows of the view; None where they were not tested."""
    if matrix is None or one is None or other is None:
        return None
    here, there = (matrix.compared.place.get(entry.id) for entry in (one, other))
    if here is None or there is None:
        return None
    pairs = matrix.compared.pairs
    estimate, low, high = (float(part[here, there]) for part in (pairs.estimate, pairs.low, pairs.high))
    sign = 1 if estimate > 0 else -1
    return Versus(other, estimate, low, high, sign if pairs.different[here, there] else 0)
