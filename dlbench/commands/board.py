"""`dlbench board`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.errors import DlbenchError


def board(
    run_dir: Annotated[list[Path], typer.Argument(help="Folders that `dlbench run` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for the site.")] = Path("site"),
) -> None:
    """Build the leaderboard of one or more runs: static pages that open from the file system."""
    for folder in run_dir:
        if not (folder / "records.jsonl").is_file():
            raise DlbenchError(f"{folder} holds no records.jsonl: give a folder that `dlbench run` wrote")
    from dlbench.leaderboard.site import build

    typer.echo(build(run_dir, out))
