"""`dlbench export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import at_home, echo
from dlbench.terminal.said import say


def export(
    run: Annotated[Path, typer.Argument(callback=at_home, help="A folder that `dlbench run` wrote.")],
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method of the row.")],
    to: Annotated[Path, typer.Option("--to", callback=at_home, help="New folder for the checkpoint.")],
    at: Annotated[
        float | None, typer.Option(metavar="BUDGET", help="Budget of the row. [the only one of the method]")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Task of the row: sets that were fitted differ. [the only one]")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The model that ran. [as the run was given it]")] = None,
    documents: Annotated[
        int, typer.Option(min=0, metavar="N", help="Documents of the row on which texts are compared.")
    ] = 8,
    data_dir: declared.DataDir = None,
) -> None:
    """Write the layers that a static row ran as an ordinary checkpoint, and show that it writes the row's texts.

    transformers, and what else reads the model's family, loads the folder.
    """
    from dlbench.api.results import load

    made = load(run).row(method, at, task).export(to, model=model, data_dir=data_dir, documents=documents, note=say)
    ties = f", {made.near_ties} parting at a near tie" if made.near_ties else ""
    echo(f"{made.folder}: {len(made.layers)} layers ({', '.join(map(str, made.layers))})  sha256 {made.sha256[:12]}")
    echo(f"{made.texts} texts by generate, as the row writes them under --prompt routed{ties}")
