"""What all compute-quality charts have in common: their layers, without data, domains and titles of axes."""

from __future__ import annotations

from typing import Any

from dlbench.leaderboard.charts.encoding import CONFIG, SCHEMA, Spec, as_it_is, layer, name, number
from dlbench.leaderboard.charts.style import AXIS, FLOOR, FRONT, FULL, LABEL, PAPER

WIDTH, HEIGHT = 860, 400
ROOM = 64
"""Pixels to the right of the frame, for labels."""

# The page sets `hot` to the series that the reader points at; all others are then drawn faintly.
_HOT = "length(hot) == 0 || indexof(hot, datum.s) >= 0"
_SILENT = {"aria": False}


def skeleton() -> Spec:
    """Return a new specification of a chart over named data sets."""
    halo, labels = _label_layers()
    layers = [
        *_guide_layers(), *_frontier_layers(), *_interval_layers(), _lines(), halo, _points(), labels, _budget_layer()
    ]  # fmt: skip
    return {
        "config": CONFIG,
        "layer": layers,
        "background": "transparent",
        "height": HEIGHT,
        "padding": {"left": 2, "right": ROOM, "top": 8, "bottom": 2},
        "params": [{"name": "hot", "value": []}],
        "width": WIDTH,
        "$schema": SCHEMA,
    }


def _place(*channels: str) -> Spec:
    """The channels x and y, whose domain and axis a chart sets."""
    scale = {"domain": [0, 1], "nice": False}
    return {
        one: {"axis": {}, "field": one, "scale": {**scale}, "type": "quantitative"} for one in channels or ("x", "y")
    }


def _lit(bright: float = 1, faint: float = 0.13) -> Spec:
    return {"opacity": {"condition": {"test": _HOT, "value": bright}, "value": faint}}


_BETWEEN: Spec = {"y": number("lo"), "y2": {"field": "hi"}}


def _frontier_layers() -> list[Spec]:
    """Return the line of full depth, and the edges of methods and controls with their bands."""
    shade = name("f", legend=None, scale={"domain": ["controls", "methods"], "range": [FLOOR[0], FRONT[0]]})
    full = {"type": "rule", **_SILENT, "color": FULL[0], "opacity": 0.6, "strokeDash": [2, 4]}
    band = {"type": "area", **_SILENT, "interpolate": "linear", "opacity": 0.13}
    edge = {"type": "line", **_SILENT, "opacity": 0.3, "strokeCap": "round", "strokeWidth": 5}
    return [
        layer(full, _place("y"), source="full", called="full"),
        layer(band, {**_place("x"), **_BETWEEN, "fill": shade}, source="front", called="band"),
        layer(edge, {**_place(), "stroke": shade, "order": number("x")}, source="front", called="front"),
    ]


def _guide_layers() -> list[Spec]:
    """Return the line at the cost for which methods are ranked, and the corner in which a row is better."""
    mark = {"type": "rule", **_SILENT, "color": AXIS[0], "strokeDash": [3, 3]}
    corner = {"type": "text", "align": "left", **_SILENT, "baseline": "top", "color": LABEL[0], "dx": 6, "dy": 4}
    return [
        layer(mark, _place("x"), source="mark", called="mark"),
        layer({**corner, "fontStyle": "italic"}, {**_place(), "text": name("t")}, source="better", called="better"),
    ]


def _budget_layer() -> Spec:
    below = {
        "type": "text",
        "align": "center",
        **_SILENT,
        "baseline": "top",
        "color": LABEL[0],
        "dy": 9,
        "fontSize": 10,
    }
    return layer(below, {**_place(), "text": name("t"), **_lit()}, source="budgets", called="budgets")


def _interval_layers() -> list[Spec]:
    """Return the intervals of points: as bands of the series that is pointed at, as whiskers of all."""
    return [
        layer(
            {"type": "area", **_SILENT, "opacity": 0.16},
            {**_place("x"), **_BETWEEN, "detail": name("s"), "fill": as_it_is("c")},
            source="points",
            called="series-band",
            only="length(hot) > 0 && indexof(hot, datum.s) >= 0",
        ),
        layer(
            {"type": "rule", **_SILENT, "strokeWidth": 1.5},
            {**_place("x"), **_BETWEEN, "stroke": as_it_is("c"), **_lit(0.55, 0.06)},
            source="points",
            called="whiskers",
        ),
    ]


def _lines() -> Spec:
    drawn = {"detail": name("s"), "order": number("n"), "stroke": as_it_is("c"), "strokeDash": as_it_is("dash")}
    return layer(
        {"type": "line", **_SILENT, "strokeWidth": 1.75},
        {**_place(), **_lit(), **drawn},
        source="points",
        called="lines",
        only="datum.k != 'full' && datum.k != 'dense'",
    )


def _points() -> Spec:
    larger = {"condition": {"test": "datum.k == 'full' || datum.k == 'dense'", "value": 130}, "value": 72}
    drawn = {"shape": as_it_is("shape"), "stroke": as_it_is("c"), "fill": as_it_is("fill"), "size": larger}
    return layer(
        {"type": "point", "strokeWidth": 1.75},
        {**_place(), **_lit(), "description": name("text"), **drawn},
        source="points",
        called="points",
    )


def _label_layers() -> tuple[Spec, Spec]:
    """Return the halo of the labels, which lies under the points, and the labels, which lie over them."""
    beside: dict[str, Any] = {
        "type": "text",
        "align": {"expr": "datum.side"},
        **_SILENT,
        "baseline": "middle",
        "dx": {"expr": "datum.side == 'left' ? 10 : -10"},
    }
    outline = {"fill": PAPER[0], "stroke": PAPER[0], "strokeJoin": "round", "strokeWidth": 4}
    text = {**_place(), "text": name("s"), **_lit()}
    halo = layer({**beside, **outline}, text, source="labels", called="halo")
    return halo, layer(beside, {**text, "fill": as_it_is("c")}, source="labels", called="labels")
