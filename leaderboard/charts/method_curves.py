"""The curves of one method, a small chart per task: its own series in colour, the others in grey behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlbench.leaderboard.charts.encoding import CONFIG, SCHEMA, as_it_is, layer, name, number
from dlbench.leaderboard.charts.style import FULL, OTHER, PAPER, Mark
from dlbench.leaderboard.data.entries import kind_of, shown
from dlbench.leaderboard.data.views import BoardView

WIDTH, HEIGHT, ACROSS = 250, 170, 4
MOST = 8
"""Tasks that get a chart on a method's page."""
BEHIND = 8
"""How many other series are drawn behind: those that keep most."""


def curves(views: Sequence[BoardView], labels: Sequence[str], marks: Mapping[str, Mark]) -> dict[str, Any] | None:
    """Return the Vega-Lite specification: what is kept over total FLOPs, a panel per view; None without a point."""
    points = []
    panels = []
    for view in views[:MOST]:
        others: dict[str, float] = {}
        for entry in view.entries:
            if shown(entry) and entry.label not in labels and kind_of(entry) in ("method", "control"):
                others[entry.label] = max(others.get(entry.label, 0.0), entry.retained or 0.0)
        behind = sorted(others, key=lambda label: (-others[label], label))[:BEHIND]
        mine = [
            {
                "v": view.title,
                "s": entry.label,
                "x": round(entry.costs["total"], 5),
                "y": round(entry.retained, 5),
                "lo": round((entry.bounds or (entry.retained,))[0], 5),
                "hi": round((entry.bounds or (entry.retained,))[-1], 5),
                "n": entry.budget or 2.0,
                "own": entry.label in labels,
                "c": marks[entry.label].colour if entry.label in labels else OTHER[0],
                "fill": PAPER[0] if marks[entry.label].hollow else marks[entry.label].colour,
                "shape": marks[entry.label].shape,
            }
            for entry in view.entries
            if shown(entry) and "total" in entry.costs and entry.retained is not None
            and (entry.label in labels or entry.label in behind)
        ]  # fmt: skip
        if any(point["own"] for point in mine):
            points += mine
            panels.append(view.title)
    if not points:
        return None
    spec: dict[str, Any] = _skeleton()
    spec["facet"]["sort"], spec["columns"] = panels, min(ACROSS, len(panels))
    spec["datasets"] = {"points": points}
    return spec


def _skeleton() -> dict[str, Any]:
    """Return what all these charts have in common: a new specification."""
    percent = {"format": "%", "tickCount": 4}
    x = {"axis": percent, "field": "x", "scale": {"zero": False}, "title": "FLOPs, share of full depth"}
    x["type"] = "quantitative"
    y = {"axis": percent, "field": "y", "title": "quality kept", "type": "quantitative"}
    series = {"x": x, "y": y, "detail": name("s"), "order": number("n"), "stroke": as_it_is("c")}
    between = {"x": x, "y": number("lo"), "y2": {"field": "hi"}, "detail": name("s"), "fill": as_it_is("c")}
    shapes = {"x": x, "y": y, "stroke": as_it_is("c"), "fill": as_it_is("fill"), "shape": as_it_is("shape")}
    full = {"type": "rule", "aria": False, "color": FULL[0], "opacity": 0.5, "strokeDash": [2, 4]}
    layers = [
        layer(full, {"y": {"datum": 1}}),
        layer({"type": "line", "aria": False, "opacity": 0.55, "strokeWidth": 1.2}, series, only="!datum.own"),
        layer({"type": "area", "aria": False, "opacity": 0.16}, between, only="datum.own"),
        layer({"type": "line", "aria": False, "strokeWidth": 2}, series, only="datum.own"),
        layer({"type": "point", "size": 48, "strokeWidth": 1.6}, shapes, only="datum.own"),
    ]
    header = {"labelFontSize": 12.5, "labelFontWeight": 600}
    return {
        "config": CONFIG,
        "data": {"name": "points"},
        "facet": {"field": "v", "header": header, "title": None, "type": "nominal"},
        "spec": {"layer": layers, "height": HEIGHT, "width": WIDTH},
        "background": "transparent",
        "columns": ACROSS,
        "padding": 4,
        "spacing": 28,
        "$schema": SCHEMA,
    }
