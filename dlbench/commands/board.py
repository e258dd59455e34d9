"""`dlbench board`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.errors import DlbenchError


def board(
    run_dir: Annotated[list[Path], typer.Argument(help="Folders that `dlbench run` wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the site. [site, unless something else is asked for]")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Print the frontier and the table.")] = False,
    png: Annotated[Path | None, typer.Option(help="Folder for all charts as PNG.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Folder for all charts as SVG.")] = None,
    index: Annotated[Path | None, typer.Option(help="File for the board's figures and ranks as JSON.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: fail where the site or index is stale.")
    ] = False,
) -> None:
    """Build the leaderboard of one or more runs: static pages that open from the file system."""
    for folder in run_dir:
        if not (folder / "records.jsonl").is_file():
            raise DlbenchError(f"{folder} holds no records.jsonl: give a folder that `dlbench run` wrote")
    if check and (text or png or svg):
        raise DlbenchError("--check compares a site (--out) or an index (--index); leave out --text, --png and --svg")
    from dlbench.leaderboard import site

    if index is not None:
        if check:
            site.check_index(run_dir, index)
        else:
            site.write_index(run_dir, index)
        typer.echo(f"{index}: {'as these records give it' if check else 'written'}")
    if text or png or svg:
        from dlbench.leaderboard.pictures import save_pictures
        from dlbench.leaderboard.text import print_board

        read = site.read_board(run_dir)
        if text:
            print_board(read)
        if png is not None:
            typer.echo(f"{len(save_pictures(read, png, 'png'))} charts in {png}")
        if svg is not None:
            typer.echo(f"{len(save_pictures(read, svg, 'svg'))} charts in {svg}")
    if out is None and (index or text or png or svg):
        return
    place = out or Path("site")
    if check:
        typer.echo(f"{place}: {site.check(run_dir, place)} files, all as these records give them")
    else:
        typer.echo(site.build(run_dir, place))
