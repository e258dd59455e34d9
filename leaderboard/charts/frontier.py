"""The compute-quality chart of a view: one Vega-Lite specification, drawn here as SVG and by the page interactively.

Everything that depends on the cost axis is in named data sets, so that the page can change the axis by changing them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.charts.frontier_layers import HEIGHT, ROOM, WIDTH, skeleton
from dlbench.leaderboard.charts.style import OTHER, PAPER, TELLING, Mark, view_marks
from dlbench.leaderboard.data.cost_axes import Axis
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, relative, shown
from dlbench.leaderboard.data.views import BoardView

# Pixels: the height of a label's line, and a mean letter's width.
_LINE, _EM = 15, 6.6
MOST_BUDGETS = 40
"""Points that have their budget written beside them: more could not be read."""
Datum = dict[str, Any]


def datasets(view: BoardView, marks: Mapping[str, Mark], axis: Axis, standings: Standings) -> dict[str, list[Datum]]:
    """Return all data of a view's chart on one cost axis."""
    entries = [entry for entry in view.entries if shown(entry) and axis.key in entry.costs]
    kept = relative(view.entries)
    told = _told(view, marks)
    points = [
        _point(entry, marks[entry.label], axis, kept, entry.label in told, standings.bounds_of(entry))
        | {"text": describe(entry, axis, view.metric, standings)}
        for entry in entries
    ]
    points.sort(key=lambda point: (_DEPTH[point["k"]], point["n"]))  # oracles are drawn first, under the methods
    front = []
    for name, curve in standings.frontiers.get(axis.key, {}).items():
        for place in zip(curve.xs, curve.ys, curve.lows, curve.highs, strict=True):
            x, y, low, high = (_short(value) for value in place)
            front.append({"f": name, "x": x, "y": y, "lo": low, "hi": high})
    domain = _domains(points, front)
    verdict = standings.verdicts.get(axis.key)
    mark = None if verdict is None else verdict.mark
    return {
        "points": points,
        "front": front,
        "labels": _labels(points, domain),
        "frame": [{"x": domain[0][place], "y": domain[1][place]} for place in (0, 1)],
        "full": [{"y": point["y"]} for point in points if point["k"] == "full"][:1],
        "mark": [{"x": mark}] if mark is not None and domain[0][0] < mark < domain[0][1] else [],
        "better": [{"x": domain[0][0], "y": domain[1][1], "t": "↖ better"}],
        "budgets": _budgets(points, domain),
    }


_DEPTH = {"oracle": 0, "control": 1, "method": 2, "dense": 3, "full": 4}


def _told(view: BoardView, marks: Mapping[str, Mark]) -> set[str]:
    """Return the series that are drawn in colour: all, or where there are too many, those that keep most quality."""
    series: dict[str, list[float]] = {}
    for entry in view.entries:
        if shown(entry) and kind_of(entry) == "method":
            series.setdefault(entry.label, []).append(entry.retained or entry.score or 0.0)
    best = sorted(series, key=lambda label: (-max(series[label]), label))[:TELLING]
    few = [mark.label for mark in view_marks(view, marks) if mark.kind not in ("method", "control")]
    controls = [mark.label for mark in view_marks(view, marks) if mark.kind == "control"]
    return {*best, *few, *(controls if len(controls) <= TELLING else ())}


def _point(
    entry: BoardEntry, mark: Mark, axis: Axis, kept: bool, told: bool, bounds: tuple[float, float] | None
) -> Datum:
    cost = entry.costs[axis.key]
    value = entry.retained if kept else entry.score
    assert value is not None  # `shown`, and `relative` where some have no score
    low, high = bounds if kept and bounds else (value, value)
    colour = mark.colour if told else OTHER[0]
    return {
        "id": entry.id,
        "s": entry.label,
        "k": mark.kind,
        "n": entry.budget or 2.0,
        "x": _short(cost),
        "y": _short(value),
        "lo": _short(low),
        "hi": _short(high),
        "c": colour,
        "fill": PAPER[0] if mark.hollow else colour,
        "shape": mark.shape,
        "dash": list(mark.dash or (1, 0)),
    }


def describe(entry: BoardEntry, axis: Axis, metric: str, standings: Standings) -> str:
    """Say what a point shows, in one line."""
    cost = entry.costs[axis.key]
    budget = "" if entry.budget is None else f" at budget {entry.budget:g}"
    spent = f"{100 * cost:.1f} % of {axis.of}"
    said = f"{entry.label}{budget}: "
    if entry.score is not None:
        said += f"{metric} {entry.score:.4g} "
    if entry.retained is not None:
        interval = standings.bounds_of(entry)
        bounds = f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]" if interval else ""
        said += f"(keeps {100 * entry.retained:.1f} %{bounds}) " if entry.score is not None else ""
        said += "" if entry.score is not None else f"keeps {100 * entry.retained:.1f} %{bounds} "
    return f"{said}at {spent}"


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _domains(points: Sequence[Datum], front: Sequence[Datum]) -> tuple[tuple[float, float], ...]:
    """Return the ranges of both axes: all points and intervals, with room for labels on the right."""
    xs = [point["x"] for point in points] or [0.0, 1.0]
    ys = [bound for point in [*points, *front] for bound in (point["lo"], point["hi"])] or [0.0, 1.0]
    wide = (max(xs) - min(xs)) or 1.0
    high = (max(ys) - min(ys)) or 1.0
    low = 0.0 if 0 <= min(ys) < 0.4 * max(ys) else min(ys) - 0.06 * high
    left = min(xs) - 0.03 * wide
    return (_short(left), _short(max(xs) + 0.13 * wide)), (_short(low), _short(max(ys) + 0.05 * high))


def _budgets(points: Sequence[Datum], domain: Sequence[tuple[float, float]]) -> list[Datum]:
    """Return the budgets of the methods' points, in per cent, where they cover neither a point nor each other."""
    told = [point for point in points if point["k"] == "method" and point["c"] != OTHER[0] and point["n"] <= 1]
    if len(told) > MOST_BUDGETS:
        return []
    taken = [_pixels(point, domain) for point in points]
    budgets = []
    for one in sorted(told, key=lambda point: (-point["y"], point["x"])):
        at, height = _pixels(one, domain)
        if not any(abs(at - x) < 15 and abs(height + 14 - y) < 11 for x, y in taken):
            taken.append((at, height + 14))
            written = f"{100 * one['n']:.4g}"
            budgets.append({"s": one["s"], "x": one["x"], "y": one["y"], "t": written})
    return budgets


def _pixels(point: Datum, domain: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return where a point lies in the frame, from the upper left corner."""
    (left, right), (low, high) = domain
    return (point["x"] - left) / (right - left) * WIDTH, (high - point["y"]) / (high - low) * HEIGHT


def _labels(points: Sequence[Datum], domain: Sequence[tuple[float, float]]) -> list[Datum]:
    """Place a name beside the last point of every series, as near as it covers no other name and no point."""
    last = {point["s"]: point for point in sorted(points, key=lambda one: one["n"]) if point["c"] != OTHER[0]}
    low, high = domain[1]
    taken = [(x - 6, x + 6, y, 6.0) for x, y in (_pixels(point, domain) for point in points)]
    labels = []
    for point in sorted(last.values(), key=lambda one: (-one["y"], one["s"])):
        at, height = _pixels(point, domain)
        long = _EM * len(point["s"]) + 10
        places = [
            (abs(shift) + (10 if side == "right" else 0), side, height + shift)
            for side in ("left", "right")
            for shift in range(-45, 46)
            if (at + long < WIDTH + ROOM if side == "left" else at - long > 0) and 0 < height + shift < HEIGHT
        ]
        for _, side, y in sorted(places):
            start, end = (at + 7, at + long) if side == "left" else (at - long, at - 7)
            if not any(start < e and s < end and abs(y - m) < _LINE / 2 + half for s, e, m, half in taken):
                taken.append((start, end, y, _LINE / 2))
                y = _short(high - y / HEIGHT * (high - low))
                labels.append({"s": point["s"], "x": point["x"], "y": y, "c": point["c"], "side": side})
                break
    return labels


def specification(view: BoardView, data: Mapping[str, list[Datum]], axis: Axis) -> dict[str, Any]:
    """Return the Vega-Lite specification of a view's chart over these data sets."""
    kept = relative(view.entries)
    spec: dict[str, Any] = skeleton()
    (left, low), (right, high) = ((corner["x"], corner["y"]) for corner in data["frame"])
    x_axis = {"title": axis.title, "format": "%", "tickCount": 8}
    y_axis = {
        "title": "quality kept, of full depth" if kept else view.metric,
        "format": "%" if kept else "",
        "tickCount": 7,
    }
    for layer in spec["layer"]:
        for channel, domain, written in (("x", [left, right], x_axis), ("y", [low, high], y_axis)):
            encoded = layer["encoding"].get(channel, {})
            if "scale" in encoded:
                encoded["scale"]["domain"], encoded["axis"] = domain, written
    spec["datasets"] = dict(data)
    return spec
