"""`dlbench prefetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.terminal import at_home, interrupted, unique


def prefetch(
    tasks: Annotated[list[str], typer.Argument(help="Tasks or suites, also of lm-eval.")],
    to: Annotated[
        Path, typer.Option(callback=at_home, help="Folder of the mirrors; give it to `dlbench run --data-dir`.")
    ],
    include_path: Annotated[list[str] | None, typer.Option(help="Folder with task YAML of your own; repeat.")] = None,
) -> None:
    """Copy the data of tasks into a folder, for machines without a network.

    A lock file in that folder records the revision, and the sha256 and number of lines of every file.
    """
    from dlbench.data.prefetch import Fetched, fetch
    from dlbench.data.task_options import Sources

    def say(made: Fetched) -> None:
        counts = ", ".join(f"{split} {count:,}" for split, count in made.counts.items())
        revision = f"revision {made.revision[:12]}" if made.revision else "no revision: not from the hub"
        typer.echo(f"{made.folder}  {counts}  ({revision})")

    try:
        sources = Sources(include=unique(include_path))
        sources.check(())
        fetch(tuple(tasks), to, sources, say)
    except KeyboardInterrupt:
        raise interrupted("complete mirrors stay; the same command writes the rest") from None
