"""`dlbench board`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options.terminal import at_home, echo, interrupted
from dlbench.errors import DlbenchError


def board(
    run_dir: Annotated[list[Path], typer.Argument(callback=at_home, help="Folders that `dlbench run` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(
            callback=at_home, help="Folder for the site. [site; none with --text, --png, --svg, --dataset or --index]"
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Print the frontier and the table.")] = False,
    png: Annotated[Path | None, typer.Option(callback=at_home, help="Folder for all charts as PNG.")] = None,
    svg: Annotated[Path | None, typer.Option(callback=at_home, help="Folder for all charts as SVG.")] = None,
    index: Annotated[
        Path | None, typer.Option(callback=at_home, help="File for the board's figures and ranks as JSON.")
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(callback=at_home, help="New folder for records and samples as a Hugging Face data set."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail if the site or index is out of date.")
    ] = False,
    processes: Annotated[
        int | None, typer.Option(min=1, help="Processes that share the work. [one; for a large board one per core]")
    ] = None,
) -> None:
    """Build the leaderboard of one or more runs: static pages that open without a server."""
    for folder in run_dir:
        if not (folder / "records.jsonl").is_file():
            raise DlbenchError(f"{folder} holds no records.jsonl: give a folder that `dlbench run` wrote")
    if check and (text or png or svg or dataset):
        raise DlbenchError(
            "--check compares a site (--out) or an index (--index); leave out what writes something else"
        )
    from dlbench.leaderboard import site
    from dlbench.leaderboard.board import read_board
    from dlbench.leaderboard.chart_files import save_pictures
    from dlbench.leaderboard.data.apart import apart
    from dlbench.leaderboard.terminal.table import print_board
    from dlbench.leaderboard.workers import Workers, enough

    site_out = out or (None if index or text or png or svg or dataset else Path("site"))
    if site_out is not None:
        site.check_place(run_dir, site_out)
    try:
        with Workers(processes or enough(run_dir)) as workers:
            read = read_board(run_dir, workers)
            for line in apart(read.tracks):
                typer.echo(line, err=True)
            if index is not None:
                (site.check_index if check else site.write_index)(read, index)
                echo(f"{index}: {'as these records give it' if check else 'written'}")
            if text:
                print_board(read)
            if png is not None:
                echo(f"{len(save_pictures(read, png, 'png'))} charts in {png}")
            if svg is not None:
                echo(f"{len(save_pictures(read, svg, 'svg'))} charts in {svg}")
            if dataset is not None:
                from dlbench.api.results import Results

                echo(f"{Results.of(read).to_dataset(dataset)}: a data set; its card is README.md")
            if site_out is not None and check:
                echo(f"{site_out}: {site.check(read, site_out, workers)} files, all as these records give them")
            elif site_out is not None:
                echo(site.build(read, site_out, workers))
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "the same command builds the board again") from None
