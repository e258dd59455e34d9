"""`dlbench new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options.command import PLAIN, Command
from dlbench.commands.options.terminal import at_home, echo

new = typer.Typer(help="Begin something of your own.", **PLAIN)


@new.callback(invoke_without_command=True)
def _new(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        echo(context.get_help())


@new.command("method", cls=Command)
def new_method(
    name: Annotated[str, typer.Argument(help="Name of the method: lower-case letters, digits and _.")],
    to: Annotated[
        Path, typer.Option("--to", "--out", "-o", callback=at_home, help="Folder to make the package in.")
    ] = Path("."),
    builtin: Annotated[
        bool, typer.Option("--builtin", help="Write only the method's file, into methods/ of a checkout of dlbench.")
    ] = False,
) -> None:
    """Write an installable package with a method that runs at once, a test of its contract, and a README."""
    from dlbench.registry import scaffold

    written = scaffold.built_in(name, to) if builtin else scaffold.package(name, to)
    for path in written:
        echo(path)
    check = f"dlbench check {name} && dlbench run --method {name} --limit 20"
    echo(f"next: {check}" if builtin else f"next: pip install -e {written[0].parent} && {check}")
