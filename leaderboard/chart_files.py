"""The charts as SVG or PNG files: every view on every cost axis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from dlbench.leaderboard.board import Board
from dlbench.leaderboard.charts import frontier, style, vega
from dlbench.leaderboard.site import put


def save_pictures(board: Board, folder: Path, kind: Literal["svg", "png"]) -> list[Path]:
    """Draw all charts into a folder and return their files.

    Raises:
        BoardError: the folder can't be written.
    """
    written = []
    for name, raw in pictures(board, kind):
        put(folder / name, raw)
        written.append(folder / name)
    return written


def pictures(board: Board, kind: Literal["svg", "png"]) -> Iterator[tuple[str, bytes]]:
    """Yield file names and contents of all charts, on white."""
    marks = style.site_marks(board.views)
    for view in board.views:
        for axis in view.axes:
            data = frontier.datasets(view, marks, axis, board.standings[view.slug])
            spec = frontier.specification(view, data, axis)
            raw = vega.png(spec) if kind == "png" else vega.alone_svg(vega.draw(spec)).encode()
            yield f"{view.slug}.{axis.key}.{kind}", raw
