"""The frontier chart for a terminal: lines in braille dots, points in the shapes that the page uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil, floor, log10

from rich.console import Group
from rich.style import Style
from rich.table import Table
from rich.text import Text

from dlbench.leaderboard import formatting
from dlbench.leaderboard.charts.frontier import Datum
from dlbench.leaderboard.charts.style import Mark
from dlbench.leaderboard.data.cost_axes import Axis
from dlbench.leaderboard.data.entries import relative
from dlbench.leaderboard.data.views import BoardView

_SHAPES = {
    "circle": "●○",
    "square": "■□",
    "triangle-up": "▲△",
    "diamond": "◆◇",
    "triangle-down": "▼▽",
    "cross": "✚✚",
    "triangle-right": "▶▷",
}
# Colours of the page are made for paper; on a terminal the basic ones follow the user's own palette.
_COLOURS = ("blue", "red", "green", "magenta", "cyan", "yellow", "bright_blue", "bright_red", "bright_green")
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
_MARGIN = 6


class _Canvas:
    """Cells of 2 × 4 dots, each with what was drawn on it last."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.dots = [[0] * columns for _ in range(rows)]
        self.styles = [[Style()] * columns for _ in range(rows)]
        self.signs = [[""] * columns for _ in range(rows)]

    def line(self, start: tuple[float, float], end: tuple[float, float], style: Style, gap: int) -> None:
        """Draw from one place to another, both in cells; every `gap`-th dot."""
        steps = max(1, round(max(abs(end[0] - start[0]) * 2, abs(end[1] - start[1]) * 4)))
        for step in range(0, steps + 1, gap):
            part = step / steps
            x, y = (a + part * (b - a) for a, b in zip(start, end, strict=True))
            column, row = int(x), int(y)
            if 0 <= column < self.columns and 0 <= row < self.rows:
                self.dots[row][column] |= _DOTS[int((x - column) * 2)][int((y - row) * 4)]
                self.styles[row][column] = style

    def point(self, place: tuple[float, float], sign: str, style: Style) -> None:
        """Put a sign on a cell."""
        column, row = min(int(place[0]), self.columns - 1), min(int(place[1]), self.rows - 1)
        if column >= 0 and row >= 0:
            self.signs[row][column], self.styles[row][column] = sign, style

    def text(self, row: int) -> Text:
        """Return one row."""
        line = Text()
        for sign, dots, style in zip(self.signs[row], self.dots[row], self.styles[row], strict=True):
            line.append(sign or (chr(_BRAILLE + dots) if dots else " "), style)
        return line


def plot(
    view: BoardView,
    data: Mapping[str, list[Datum]],
    marks: Mapping[str, Mark],
    axis: Axis,
    width: int,
    height: int = 20,
) -> Group:
    """Draw the chart of a view.

    Args:
        view: what is shown.
        data: its data sets on the axis, as `chart.datasets` gives them.
        marks: how its series look.
        axis: the cost.
        width: in characters.
        height: likewise; the legend goes below.
    """
    points = data["points"]
    (low, high) = data["frame"]
    columns = max(20, width - _MARGIN - 2)
    canvas = _Canvas(columns, height)
    labels = list(dict.fromkeys(point["s"] for point in sorted(points, key=lambda one: (-_rank(one), one["s"]))))
    styles = _styles(labels, marks)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            (x - low["x"]) / (high["x"] - low["x"]) * (columns - 1),
            (high["y"] - y) / (high["y"] - low["y"]) * (height - 0.01),
        )

    for full in data["full"]:
        canvas.line(place(low["x"], full["y"]), place(high["x"], full["y"]), Style(dim=True), 5)
    for label in reversed(labels):
        mine = sorted((point for point in points if point["s"] == label), key=lambda point: point["n"])
        gap = 1 if marks[label].dash is None else 3
        if marks[label].lined:
            for one, other in pairwise(mine):
                canvas.line(place(one["x"], one["y"]), place(other["x"], other["y"]), styles[label], gap)
    for label in reversed(labels):
        for point in (point for point in points if point["s"] == label):
            canvas.point(place(point["x"], point["y"]), _sign(marks[label]), styles[label])
    lines = [Text("quality kept, share of full depth" if relative(view.entries) else view.metric, style="dim")]
    ticks = _ticks(low["y"], high["y"], height, relative(view.entries))
    for row in range(height):
        lines.append(Text.assemble((f"{ticks.get(row, ''):>5}", "dim"), ("│", "dim"), canvas.text(row)))
    lines += _cost_axis(axis, low["x"], high["x"], columns)
    return Group(*lines, _legend(labels, marks, styles, points, width))


def _cost_axis(axis: Axis, low: float, high: float, columns: int) -> list[Text]:
    """Return the lines below the chart: the rule, three costs, and what they are."""
    costs = [f"{100 * x:.0f}%" for x in (low, (low + high) / 2, high)]
    scale = costs[0] + costs[1].center(columns - len(costs[0]) - len(costs[2])) + costs[2]
    lines = ("     └" + "─" * columns, " " * _MARGIN + scale, axis.title.rjust(columns + _MARGIN))
    return [Text(line, style="dim") for line in lines]


def _ticks(low: float, high: float, height: int, share: bool) -> dict[int, str]:
    """Return row → label at round values, about five of them."""
    rough = (high - low) / 7
    size = 10.0 ** floor(log10(rough)) if rough > 0 else 1.0
    step = next((size * times for times in (1, 2, 5) if size * times >= rough), size * 10)
    labels = {}
    value = ceil(low / step) * step
    while value <= high:
        row = min(height - 1, int((high - value) / (high - low) * height))
        labels[row] = f"{100 * value:.0f}%" if share else f"{value:.3g}"
        value += step
    return labels


def _rank(point: Datum) -> float:
    return {"full": 5.0, "dense": 4.0, "method": 3.0, "control": 2.0}.get(point["k"], 1.0)


def _styles(labels: Sequence[str], marks: Mapping[str, Mark]) -> dict[str, Style]:
    styles = {}
    methods = [label for label in labels if marks[label].kind == "method"]
    for label in labels:
        if label in methods:
            styles[label] = Style(color=_COLOURS[methods.index(label) % len(_COLOURS)])
        else:
            styles[label] = Style(bold=True) if marks[label].kind in ("full", "dense") else Style(dim=True)
    return styles


def _sign(mark: Mark) -> str:
    return _SHAPES[mark.shape][mark.hollow]


def _legend(
    labels: Sequence[str], marks: Mapping[str, Mark], styles: Mapping[str, Style], points: Sequence[Datum], width: int
) -> Table:
    table = Table.grid(padding=(0, 2))
    longest = max((len(label) for label in labels), default=0) + 12
    across = max(1, min(4, width // longest))
    cells = []
    for label in labels:
        near = min((p for p in points if p["s"] == label), key=lambda p: abs((p["n"] if p["n"] <= 1 else 0.5) - 0.5))
        sign = (_sign(marks[label]), styles[label])
        cells.append(Text.assemble(sign, f" {label} ", (formatting.whole(near["y"]), "dim")))
    for start in range(0, len(cells), across):
        table.add_row(*cells[start : start + across])
    return table
