"""The compute-quality chart of a view: one Vega-Lite specification, drawn here as SVG and by the page interactively.

Everything that depends on the cost axis is in named data sets, so that the page can change the axis by changing them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt

from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.charts.style import (
    AXIS,
    FLOOR,
    FRONT,
    FULL,
    GRID,
    LABEL,
    OTHER,
    PAPER,
    TELLING,
    Mark,
    view_marks,
)
from dlbench.leaderboard.data.cost_axes import Axis
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, relative, shown
from dlbench.leaderboard.data.views import BoardView

FONT = "-apple-system, 'Segoe UI', Inter, Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', Arial, sans-serif"
WIDTH, HEIGHT = 860, 400
# Pixels: the height of a label's line, a mean letter's width, and the room for labels to the right of the frame.
_LINE, _EM, _ROOM = 15, 6.6, 64
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
            if (at + long < WIDTH + _ROOM if side == "left" else at - long > 0) and 0 < height + shift < HEIGHT
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
    spec: dict[str, Any] = json.loads(_skeleton())
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


@cache
def _skeleton() -> str:
    """Return what all charts have in common, as JSON: Altair takes longer to build it than Vega to draw it."""
    scale = alt.Scale(domain=[0, 1], nice=False)
    x, y = alt.X("x:Q", axis=alt.Axis(), scale=scale), alt.Y("y:Q", axis=alt.Axis(), scale=scale)
    halo, labels = _label_layers(x, y)
    layers = [
        *_guide_layers(x, y), *_frontier_layers(x, y), *_interval_layers(x), _lines(x, y), halo, _points(x, y), labels,
        _budget_layer(x, y),
    ]  # fmt: skip
    chart = (
        alt.layer(*layers)
        .add_params(alt.param(name="hot", value=[]))
        .properties(
            width=WIDTH,
            height=HEIGHT,
            background="transparent",
            padding={"left": 2, "right": _ROOM, "top": 8, "bottom": 2},
        )
    )
    return json.dumps(configured(chart).to_dict())


# The page sets `hot` to the series that the reader points at; all others are then drawn faintly.
_HOT = "length(hot) == 0 || indexof(hot, datum.s) >= 0"


def _lit() -> Any:
    return alt.condition(_HOT, alt.value(1), alt.value(0.13))


def _layer(name: str, source: str) -> alt.Chart:
    """Return a layer over a named data set."""
    return alt.Chart(alt.NamedData(name=source), name=name)


def _frontier_layers(x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return the line of full depth, and the edges of methods and controls with their bands."""
    shade = alt.Scale(domain=["controls", "methods"], range=[FLOOR[0], FRONT[0]])
    return [
        _layer("full", "full").mark_rule(color=FULL[0], strokeDash=[2, 4], opacity=0.6, aria=False).encode(y=y),
        _layer("band", "front")
        .mark_area(opacity=0.13, interpolate="linear", aria=False)
        .encode(x=x, y=alt.Y("lo:Q"), y2="hi:Q", fill=alt.Fill("f:N", scale=shade, legend=None)),
        _layer("front", "front")
        .mark_line(strokeWidth=5, opacity=0.3, strokeCap="round", aria=False)
        .encode(x=x, y=y, stroke=alt.Stroke("f:N", scale=shade, legend=None), order="x:Q"),
    ]


def _guide_layers(x: alt.X, y: alt.Y) -> list[alt.Chart]:
    """Return the line at the cost for which methods are ranked, and the corner in which a row is better."""
    return [
        _layer("mark", "mark").mark_rule(color=AXIS[0], strokeDash=[3, 3], aria=False).encode(x=x),
        _layer("better", "better")
        .mark_text(align="left", baseline="top", dx=6, dy=4, fontStyle="italic", color=LABEL[0], aria=False)
        .encode(x=x, y=y, text="t:N"),
    ]


def _budget_layer(x: alt.X, y: alt.Y) -> alt.Chart:
    return (
        _layer("budgets", "budgets")
        .mark_text(align="center", baseline="top", dy=9, fontSize=10, color=LABEL[0], aria=False)
        .encode(x=x, y=y, text="t:N", opacity=_lit())
    )


def _interval_layers(x: alt.X) -> list[alt.Chart]:
    """Return the intervals of points: as bands of the series that is pointed at, as whiskers of all."""
    return [
        _layer("series-band", "points")
        .transform_filter("length(hot) > 0 && indexof(hot, datum.s) >= 0")
        .mark_area(opacity=0.16, aria=False)
        .encode(x=x, y=alt.Y("lo:Q"), y2="hi:Q", detail="s:N", fill=alt.Fill("c:N", scale=None)),
        _layer("whiskers", "points")
        .mark_rule(strokeWidth=1.5, aria=False)
        .encode(
            x=x, y=alt.Y("lo:Q"), y2="hi:Q", stroke=alt.Stroke("c:N", scale=None),
            opacity=alt.condition(_HOT, alt.value(0.55), alt.value(0.06)),
        ),
    ]  # fmt: skip


def _lines(x: alt.X, y: alt.Y) -> alt.Chart:
    return (
        _layer("lines", "points")
        .transform_filter("datum.k != 'full' && datum.k != 'dense'")
        .mark_line(strokeWidth=1.75, aria=False)
        .encode(
            x=x, y=y, detail="s:N", order="n:Q", opacity=_lit(),
            stroke=alt.Stroke("c:N", scale=None), strokeDash=alt.StrokeDash("dash:N", scale=None),
        )
    )  # fmt: skip


def _points(x: alt.X, y: alt.Y) -> alt.Chart:
    return (
        _layer("points", "points")
        .mark_point(strokeWidth=1.75)
        .encode(
            x=x, y=y, opacity=_lit(), description="text:N",
            size=alt.condition("datum.k == 'full' || datum.k == 'dense'", alt.value(130), alt.value(72)),
            shape=alt.Shape("shape:N", scale=None), stroke=alt.Stroke("c:N", scale=None),
            fill=alt.Fill("fill:N", scale=None),
        )
    )  # fmt: skip


def _label_layers(x: alt.X, y: alt.Y) -> tuple[alt.Chart, alt.Chart]:
    """Return the halo of the labels, which lies under the points, and the labels, which lie over them."""
    side = alt.ExprRef("datum.side")
    beside = alt.ExprRef("datum.side == 'left' ? 10 : -10")
    outline: dict[str, Any] = {"fill": PAPER[0], "stroke": PAPER[0], "strokeWidth": 4, "strokeJoin": "round"}
    halo = (
        _layer("halo", "labels")
        .mark_text(align=side, dx=beside, baseline="middle", aria=False, **outline)
        .encode(x=x, y=y, text="s:N", opacity=_lit())
    )
    labels = (
        _layer("labels", "labels")
        .mark_text(align=side, dx=beside, baseline="middle", aria=False)
        .encode(x=x, y=y, text="s:N", fill=alt.Fill("c:N", scale=None), opacity=_lit())
    )
    return halo, labels


def configured(chart: Any) -> Any:
    """Give a chart the axes and fonts that all charts of the board share."""
    axis = {
        "labelColor": LABEL[0],
        "titleColor": LABEL[0],
        "domainColor": AXIS[0],
        "tickColor": AXIS[0],
        "gridColor": GRID[0],
        "labelFontSize": 12.5,
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 12,
        "labelPadding": 7,
        "tickSize": 4,
    }
    over = {"titleAngle": 0, "titleAlign": "left", "titleAnchor": "start", "titleX": -44, "titleY": -14}
    return (
        chart.configure(font=FONT)
        .configure_axis(**axis)
        .configure_axisX(grid=False, titleAnchor="end")
        .configure_axisY(domain=False, ticks=False, **over)
        .configure_text(fontSize=12.5)
        .configure_view(stroke=None)
    )
