"""The curves of one method, a small chart per task: its own series in colour, the others in grey behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt

from dlbench.leaderboard.charts.frontier import configured
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
    spec: dict[str, Any] = json.loads(_skeleton())
    spec["facet"]["sort"], spec["columns"] = panels, min(ACROSS, len(panels))
    spec["datasets"] = {"points": points}
    return spec


@cache
def _skeleton() -> str:
    """Return what all these charts have in common, as JSON."""
    percent = alt.Axis(format="%", tickCount=4)
    x = alt.X("x:Q", title="FLOPs, share of full depth", scale=alt.Scale(zero=False), axis=percent)
    y = alt.Y("y:Q", title="quality kept", axis=percent)
    colour = alt.Stroke("c:N", scale=None)
    base = alt.Chart(alt.NamedData(name="points"))
    own = base.transform_filter("datum.own")
    layers = alt.layer(
        base.mark_rule(color=FULL[0], strokeDash=[2, 4], opacity=0.5, aria=False).encode(y=alt.datum(1)),
        base.transform_filter("!datum.own").mark_line(strokeWidth=1.2, opacity=0.55, aria=False)
        .encode(x=x, y=y, detail="s:N", order="n:Q", stroke=colour),
        own.mark_area(opacity=0.16, aria=False)
        .encode(x=x, y=alt.Y("lo:Q"), y2="hi:Q", detail="s:N", fill=alt.Fill("c:N", scale=None)),
        own.mark_line(strokeWidth=2, aria=False).encode(x=x, y=y, detail="s:N", order="n:Q", stroke=colour),
        own.mark_point(strokeWidth=1.6, size=48).encode(
            x=x, y=y, stroke=colour, fill=alt.Fill("fill:N", scale=None), shape=alt.Shape("shape:N", scale=None)
        ),
    ).properties(width=WIDTH, height=HEIGHT)  # fmt: skip
    chart = layers.facet(
        facet=alt.Facet("v:N", title=None, header=alt.Header(labelFontSize=12.5, labelFontWeight=600)),
        columns=ACROSS,
        spacing=28,
    ).properties(background="transparent", padding=4)
    return json.dumps(configured(chart).to_dict())
