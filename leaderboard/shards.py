"""Data that a page loads when it needs it: scripts, since a page that is opened from a folder may fetch nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dlbench.leaderboard import chart
from dlbench.leaderboard.chart import Frontiers
from dlbench.leaderboard.looks import COLOURS, Mark
from dlbench.leaderboard.views import View

_OF = {"total": "full’s FLOPs", "decode": "full’s decoding FLOPs", "layers": "the layers"}


def script(name: str, value: Any) -> str:
    """Return a script that hands a value over by name."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # U+2028 and U+2029 are fine in JSON and, since 2019, in scripts; older engines take them for line ends.
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f"dlbench.data[{json.dumps(name)}]={text};\n"


def chart_shard(
    view: View, spec: Mapping[str, Any], marks: Mapping[str, Mark], frontiers: Mapping[str, Frontiers]
) -> str:
    """Return all that the lively chart of a view needs: its specification, and the data on every axis."""
    base: dict[str, dict[str, Any]] = {}
    charts = {}
    for axis in view.axes:
        data = chart.datasets(view, marks, axis, frontiers.get(axis.key, {}))
        for point in data["points"]:
            base.setdefault(point["id"], {key: value for key, value in point.items() if key not in ("x", "text")})
        charts[axis.key] = {
            "x": {point["id"]: point["x"] for point in data["points"]},
            "front": data["front"],
            "labels": data["labels"],
            "frame": data["frame"],
        }
    axes = [
        {"key": axis.key, "title": axis.title, "share": axis.share, "of": _OF.get(axis.key, "")} for axis in view.axes
    ]
    bare = {key: value for key, value in spec.items() if key != "datasets"}
    return script(
        f"chart:{view.slug}",
        {"spec": bare, "axes": axes, "base": list(base.values()), "charts": charts, "colours": COLOURS},
    )
