"""Words of Vega-Lite that the charts share: fields, layers, axes and fonts."""

from __future__ import annotations

from typing import Any

from dlbench.leaderboard.charts.style import AXIS, GRID, LABEL

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.4.1.json"
"""Names the language of a specification; nothing reads the address."""
FONT = "-apple-system, 'Segoe UI', Inter, Roboto, 'Helvetica Neue', 'Noto Sans', 'Liberation Sans', Arial, sans-serif"

CONFIG: Spec = {
    "view": {"continuousWidth": 300, "continuousHeight": 300, "stroke": None},
    "axis": {
        "domainColor": AXIS[0],
        "gridColor": GRID[0],
        "labelColor": LABEL[0],
        "labelFontSize": 12.5,
        "labelPadding": 7,
        "tickColor": AXIS[0],
        "tickSize": 4,
        "titleColor": LABEL[0],
        "titleFontSize": 13,
        "titleFontWeight": "normal",
        "titlePadding": 12,
    },
    "axisX": {"grid": False, "titleAnchor": "end"},
    "axisY": {
        "domain": False,
        "ticks": False,
        "titleAlign": "left",
        "titleAnchor": "start",
        "titleAngle": 0,
        "titleX": -44,
        "titleY": -14,
    },
    "font": FONT,
    "text": {"fontSize": 12.5},
}
"""Axes and fonts of all charts of the board."""


def number(field: str) -> Spec:
    """A channel that reads a number."""
    return {"field": field, "type": "quantitative"}


def name(field: str, **more: Any) -> Spec:
    """A channel that reads a name."""
    return {"field": field, **more, "type": "nominal"}


def as_it_is(field: str) -> Spec:
    """A channel that reads what it draws: a colour, a shape, a dash."""
    return name(field, scale=None)


def layer(mark: Spec, encoding: Spec, *, source: str = "", called: str = "", only: str = "") -> Spec:
    """A layer of a chart.

    Args:
        mark: what it draws.
        encoding: channels, by their names.
        source: a named data set; empty for the chart's own.
        called: the layer's name.
        only: condition that its data must meet; empty for all.
    """
    return {
        **({"data": {"name": source}} if source else {}),
        "mark": {**mark},
        "encoding": dict(sorted(encoding.items())),
        **({"name": called} if called else {}),
        **({"transform": [{"filter": only}]} if only else {}),
    }
