"""The board's terminal twin: the table that ends a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlbench.leaderboard import formatting
from dlbench.leaderboard.board import Board
from dlbench.leaderboard.charts import frontier, style
from dlbench.leaderboard.data.tracks import Row, Track
from dlbench.leaderboard.terminal.plot import plot


def print_board(board: Board, console: Console | None = None) -> None:
    """Print the board: the chart of its first view, then the table of every task."""
    console = console or Console()
    if not console.is_terminal and console.width < 110:
        console = Console(width=110, file=console.file)  # a log has no edge to wrap at
    marks = style.site_marks(board.views)
    view = board.views[0]
    console.print(Text(f"{view.title} on {view.backbone}", style="bold"))
    for axis in view.axes[:1]:
        frontiers = board.standings[view.slug].frontiers.get(axis.key, {})
        data = frontier.datasets(view, marks, axis, frontiers)
        console.print(plot(view, data, marks, axis, min(console.width, 110)))
    console.print()
    console.print(closing_table(board.tracks, console.width))


def closing_table(tracks: Sequence[Track], width: int = 100) -> Table:
    """Return the table of a run: a section per task, oracles apart from what can be deployed.

    Below 100 columns the milliseconds and the FLOPs of decoding alone are left to the board.
    """
    wide = width >= 100
    batches = sorted({batch for track in tracks for row in track.rows for batch in row.timings})[:2]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, caption_justify="left")
    table.add_column("method", overflow="fold", min_width=16, max_width=26)
    for header in ("budget", "quality"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("retained [95 %]", no_wrap=True)
    for header in ("layer\nshare", "FLOPs\ndecode", "FLOPs\ntotal") if wide else ("layer\nshare", "FLOPs\ntotal"):
        table.add_column(header, justify="right", no_wrap=True)
    for batch in batches:
        table.add_column(f"ms/token\nbatch {batch}" if wide else f"×\nb{batch}", justify="right", no_wrap=True)
    for place, track in enumerate(tracks):
        if place:
            table.add_section()
        heading = Text(track.task.name, style="bold", no_wrap=True)
        table.add_row(heading, "", Text(f"n {track.task.n}", style="dim"), Text(track.task.metric, style="dim"))
        places = formatting.decimals(row.record.quality.mean for row in track.rows if row.record.quality)
        for rows, remark in ((track.deployable, ""), (track.oracles, "not deployable:")):
            if rows and remark:
                table.add_row(Text(remark, style="italic dim"))
            before = ""
            for row in rows:
                table.add_row(*_cells(row, before, places, batches, wide), style=_style(row))
                before = row.label
        if any(not row.ok for row in track.rows):
            table.caption = "† unreachable: the budget is missed; the closest setting that was found is shown"
    return table


def _style(row: Row) -> str:
    if not row.ok:
        return "dim"
    return "bold" if row.role == "full" else ""


def _cells(row: Row, before: str, places: int, batches: Iterable[int], wide: bool) -> list[Text]:
    quality, compute = row.record.quality, row.record.compute
    cells = [
        "" if row.label == before else f" {row.label}",
        formatting.budget(row.record.run.budget) + ("" if row.ok else " †"),
        formatting.score(quality.mean if quality else None, places),
        formatting.ratio(quality.retained, quality.retained_ci95) if quality else formatting.NOTHING,
        formatting.share(compute.layer_share if compute else None),
        *([formatting.share(compute.flop_share_decode if compute else None)] if wide else []),
        formatting.share(compute.flop_share_total if compute else None),
    ]
    for batch in batches:
        timing = row.timings.get(batch)
        ratio = formatting.speedup(timing.speedup, 1) if timing else formatting.NOTHING
        if timing and wide:
            ratio = f"{formatting.milliseconds(timing.decode_ms_per_token)} {ratio:>4}".rstrip()
        cells.append(ratio)
    # Text, not str: a method's name must not be read as markup.
    return [Text(cell) for cell in cells]
