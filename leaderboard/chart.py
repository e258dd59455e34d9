"""The compute-quality chart of one track: Altair, as an SVG that stands in the page and needs no script."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import altair as alt

from dlbench.leaderboard.tracks import Row, Track

# Light and dark colour of each series in turn. Charts are drawn in the light ones; the page's style sheet turns exactly
# these values into the dark ones, so no two may be equal, nor equal to a colour of the frame.
PALETTE = (
    ("#2563b0", "#7db2ff"),
    ("#c2530a", "#ff9e5e"),
    ("#1f7a4a", "#5fd39a"),
    ("#b0244f", "#ff8aa8"),
    ("#6d43b8", "#bb9dff"),
    ("#0d7a86", "#50cfdb"),
    ("#8a5620", "#dcb07a"),
    ("#6a740f", "#c6d257"),
    ("#9c2f92", "#ee8fe6"),
    ("#53627a", "#a9b9d1"),
)
FULL = ("#17191d", "#f4f3ee")
DENSE = ("#18191e", "#f3f3ed")
ORACLE = ("#7a7f89", "#9aa0ab")
LABEL = ("#565b65", "#a8adb8")
AXIS = ("#b9bcc2", "#4a4f59")
GRID = ("#e6e6e3", "#2b2f36")
PAPER = ("#fffffe", "#16181c")
COLOURS = (*PALETTE, FULL, DENSE, ORACLE, LABEL, AXIS, GRID, PAPER)

SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
_DASHES: Mapping[str, tuple[int, int]] = {"oracle": (6, 3), "oracle_cross": (2, 3)}


@dataclass(frozen=True, slots=True)
class Mark:
    """How a series looks: in the chart, and in the legend beside it."""

    label: str
    role: str
    colour: str
    shape: str
    hollow: bool
    dash: tuple[int, int] | None
    anchor: str


def method_colours(tracks: Iterable[Track]) -> dict[str, tuple[str, str]]:
    """Give every deployable method of a site a colour and a shape, the same in all its charts."""
    labels = sorted({row.label for track in tracks for row in track.rows if row.role == "method"})
    return {
        label: (PALETTE[place % len(PALETTE)][0], SHAPES[place % len(SHAPES)]) for place, label in enumerate(labels)
    }


def marks(track: Track, colours: Mapping[str, tuple[str, str]]) -> list[Mark]:
    """Return one mark per series that has a point to show, in the order of the table."""
    found: dict[str, Mark] = {}
    for row in _shown(track.rows):
        if row.label in found:
            continue
        name, anchor = row.record.method.name, row.anchor
        if row.role == "full":
            mark = Mark(row.label, row.role, FULL[0], "diamond", False, None, anchor)
        elif row.role == "dense":
            mark = Mark(row.label, row.role, DENSE[0], "square", True, None, anchor)
        elif row.role == "oracle":
            shape = SHAPES[("oracle", "oracle_cross", "oracle@full").index(name)] if name in _ORACLES else "cross"
            mark = Mark(row.label, row.role, ORACLE[0], shape, True, _DASHES.get(name, (4, 2)), anchor)
        else:
            colour, shape = colours[row.label]
            mark = Mark(row.label, row.role, colour, shape, False, None, anchor)
        found[row.label] = mark
    return list(found.values())


_ORACLES = ("oracle", "oracle_cross", "oracle@full")


def svg(track: Track, colours: Mapping[str, tuple[str, str]]) -> str | None:
    """Draw quality over total FLOPs, one line per series, as SVG text; None where there is no point to show.

    The same records give the same text.
    """
    series = marks(track, colours)
    if not series:
        return None
    looks = {mark.label: mark for mark in series}
    points = [_point(row, looks[row.label], track.task.metric) for row in _shown(track.rows)]
    x = alt.X(
        "x:Q",
        title="FLOPs, prompt and output, share of full depth",
        scale=alt.Scale(zero=False, nice=True, padding=14),
        axis=alt.Axis(format="%", tickCount=7),
    )
    y = alt.Y("y:Q", title=track.task.metric, scale=alt.Scale(zero=False, nice=True, padding=14))
    layers: list[Any] = []
    full = [point for point in points if point["role"] == "full"]
    if full:
        rule = alt.Chart(alt.Data(values=full[:1])).mark_rule(
            color=FULL[0], strokeDash=[2, 4], strokeWidth=1, opacity=0.65, aria=False
        )
        layers.append(rule.encode(y=y))
    # Oracles first, so that they lie under the methods that people came for.
    for mark in sorted(series, key=lambda one: (one.role != "oracle", one.role == "full")):
        mine = alt.Chart(alt.Data(values=[point for point in points if point["label"] == mark.label]))
        if mark.role in ("method", "oracle"):
            dash = {} if mark.dash is None else {"strokeDash": list(mark.dash)}
            line = mine.mark_line(color=mark.colour, strokeWidth=1.75, aria=False, **dash)
            layers.append(line.encode(x=x, y=y, order="x:Q"))
        spot = mine.mark_point(
            shape=mark.shape,
            size=110 if mark.role in ("full", "dense") else 64,
            filled=False,
            stroke=mark.colour,
            fill=PAPER[0] if mark.hollow else mark.colour,
            strokeWidth=1.75,
            opacity=1,
        )
        layers.append(spot.encode(x=x, y=y, description="text:N"))
    chart = alt.layer(*layers).properties(width=680, height=380, background="transparent", padding=6)
    return _inline(_render(_configured(chart)), track)


def _shown(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.ok and row.record.quality and row.record.compute]


def _point(row: Row, mark: Mark, metric: str) -> dict[str, Any]:
    quality, compute = row.record.quality, row.record.compute
    assert quality is not None and compute is not None  # `_shown` keeps no other rows
    budget = "" if row.record.run.budget is None else f" at budget {row.record.run.budget:g}"
    text = f"{row.label}{budget}: {metric} {quality.mean:.4g} at {100 * compute.flop_share_total:.1f} % of full's FLOPs"
    return {
        "x": compute.flop_share_total,
        "y": quality.mean,
        "label": mark.label,
        "role": mark.role,
        "text": text,
    }


def _configured(chart: alt.LayerChart) -> alt.LayerChart:
    axis = {
        "labelColor": LABEL[0],
        "titleColor": LABEL[0],
        "domainColor": AXIS[0],
        "tickColor": AXIS[0],
        "gridColor": GRID[0],
        "labelFontSize": 12,
        "titleFontSize": 12.5,
        "titleFontWeight": "normal",
        "titlePadding": 10,
        "labelPadding": 6,
        "tickSize": 4,
    }
    configured: alt.LayerChart = (
        chart.configure(font=_FONT).configure_axis(**axis).configure_axisX(grid=False).configure_view(stroke=None)
    )
    return configured


def _render(chart: alt.LayerChart) -> str:
    buffer = io.StringIO()
    chart.save(buffer, format="svg")
    return buffer.getvalue()


def _inline(text: str, track: Track) -> str:
    """Make a drawing part of a page: titled, scalable, with hints on hover and ids of its own that never change."""
    name = f"chart-{track.anchor}"
    ids: dict[str, str] = {}
    for found in re.findall(r'\bid="([^"]+)"', text):
        ids.setdefault(found, f"{name}-{len(ids)}")
    for old, new in ids.items():
        text = text.replace(f'id="{old}"', f'id="{new}"').replace(f"url(#{old})", f"url(#{new})")
    text = re.sub(r'(<path aria-label="([^"]*)"[^>]*?)/>', r"\1><title>\2</title></path>", text)
    title = escape(f"{track.task.name}: {track.task.metric} against total FLOPs")
    body = text[text.index(">") + 1 :]
    box = re.search(r'viewBox="[^"]*"', text)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" aria-labelledby="{name}-title {name}-desc"'
    )
    return (
        f"{head} {box.group() if box else ''}>"
        f'<title id="{name}-title">{title}</title><desc id="{name}-desc">{escape(_describe(track))}</desc>{body}'
    )


def _describe(track: Track) -> str:
    lines = []
    for label in dict.fromkeys(row.label for row in _shown(track.rows)):
        places = [
            f"{row.record.quality.mean:.3g} at {100 * row.record.compute.flop_share_total:.0f} %"
            for row in _shown(track.rows)
            if row.label == label and row.record.quality and row.record.compute
        ]
        lines.append(f"{label}: {', '.join(places)}")
    return "; ".join(lines) + ". The table below holds all figures."
