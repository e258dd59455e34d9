"""The board in a terminal: a chart, and the table that also ends a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlbench.leaderboard import formatting
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.board import Board
from dlbench.leaderboard.charts import frontier, style
from dlbench.leaderboard.columns.column import TableInfo
from dlbench.leaderboard.columns.method_columns import method_columns
from dlbench.leaderboard.columns.row_columns import row_columns
from dlbench.leaderboard.columns.row_line import record_line
from dlbench.leaderboard.data.apart import base_of
from dlbench.leaderboard.data.tracks import Row, Track
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.terminal.plot import plot


def print_board(board: Board, console: Console | None = None) -> None:
    """Print the board: the chart of its first view, then the table of every task."""
    console = console or Console()
    if not console.is_terminal and console.width < 110:
        console = Console(width=110, file=console.file)  # wide enough for all columns: a log does not wrap
    marks = style.site_marks(board.views)
    view = board.views[0]
    console.print(Text(f"{view.title} on {view.backbone}", style="bold"))
    for axis in view.axes[:1]:
        data = frontier.datasets(view, marks, axis, board.standings[view.slug])
        console.print(plot(view, data, marks, axis, min(console.width, 110)))
    console.print()
    console.print(closing_table(board.tracks, console.width))
    for view in board.views:
        if not view.suite and board.standings[view.slug].summaries:
            console.print(Text(f"Methods over all budgets, {view.title} on {view.backbone}", style="bold"))
            console.print(methods_table(view, board.standings[view.slug]))


def closing_table(tracks: Sequence[Track], width: int = 100) -> Table:
    """Return the table that ends a run: a section per task, oracles apart from what can be deployed.

    A terminal of fewer than 100 characters gets no milliseconds and no FLOPs of decoding alone; the board has them.
    """
    batches = {batch for track in tracks for row in track.rows for batch in row.timings}
    info = TableInfo(batches=sorted(batches)[:2], wide=width >= 100)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    for column in row_columns("terminal", info):
        title = column.cell("terminal").title
        if column.key == "name":
            table.add_column(title, overflow="fold", min_width=16, max_width=26)
        else:
            table.add_column(title, justify="left" if column.left else "right", no_wrap=True)
    for place, track in enumerate(tracks):
        if place:
            table.add_section()
        name = track.task.name
        bases = {base_of(one) for one in tracks if one.task.name == name}
        _add_track(table, track, info, f"{name} on {base_of(track)}" if len(bases) > 1 else name)
        if any(not row.ok for row in track.rows):
            table.caption = "† unreachable: the budget is missed; the closest setting that was found is shown"
    return table


def methods_table(view: BoardView, standings: Standings) -> Table:
    """Return a line per method of a view: its rank, what is enough for 95 % of full, and the gap that it closes."""
    summaries = standings.summaries
    budgets = sorted({budget for summary in summaries for budget in summary.gaps})
    info = TableInfo(targets=(0.95,), gap_budgets=budgets)
    columns = method_columns("terminal", info)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        name = column.key == "name"
        justify: Literal["left", "right"] = "left" if column.left else "right"
        table.add_column(column.cell("terminal").title, justify=justify, no_wrap=not name, overflow="fold")
    for summary in summaries:
        # Text, not str: a method's name must not be read as markup.
        table.add_row(*(Text(column.text("terminal", summary)) for column in columns))
    return table


def _add_track(table: Table, track: Track, info: TableInfo, title: str) -> None:
    scores = [row.record.quality.mean for row in track.rows if row.record.quality]
    columns = row_columns("terminal", replace(info, decimals=formatting.decimals(scores)))
    heading = {
        "name": Text(title, style="bold", no_wrap=True),
        "score": Text(f"n {track.task.n}", style="dim"),
        "kept": Text(track.task.metric, style="dim"),
    }
    table.add_row(*(heading.get(column.key, "") for column in columns))
    for rows, remark in ((track.deployable, ""), (track.oracles, "not deployable:")):
        if rows and remark:
            table.add_row(Text(remark, style="italic dim"))
        label = ""
        for row in rows:
            line = record_line(row, track)
            texts = {column.key: column.text("terminal", line) for column in columns}
            texts["name"] = "" if row.label == label else f" {texts['name']}"
            # Text, not str: a method's name must not be read as markup.
            table.add_row(*map(Text, texts.values()), style=_style(row))
            label = row.label


def _style(row: Row) -> str:
    if not row.ok:
        return "dim"
    return "bold" if row.role == "full" else ""
