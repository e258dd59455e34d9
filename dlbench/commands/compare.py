"""`dlbench compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import at_home, print_json


def compare(
    run: Annotated[
        Path,
        typer.Argument(callback=at_home, help="A folder that `dlbench run` wrote, or published records with scores."),
    ],
    a: Annotated[str, typer.Argument(metavar="A", help="A row, by its name on the board; its dot may be - or :.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The row that it is compared with.")],
    at: Annotated[
        float | None, typer.Option(metavar="BUDGET", help="Target layer share. [the one nearest to 0.5]")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="Only this task. [all that have both rows]")] = None,
    examples: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Documents to show on which A is better, and as many on which it is worse."
        ),
    ] = 2,
    as_json: declared.AsJson = False,
) -> None:
    """Compare two rows of a run, document by document: is A better than B, by how much, and where."""
    from dlbench.leaderboard.analysis.compare import as_dict, compare, described

    comparisons = compare(run, a, b, at=at, task=task, examples=examples)
    if as_json:
        print_json({"run": str(run), "a": a, "b": b, "tasks": [as_dict(one) for one in comparisons]})
        return
    from dlbench.leaderboard.terminal.compare_report import report
    from dlbench.terminal.console import open_console

    console = open_console(100)
    console.print(report(comparisons, described(comparisons), console.width), highlight=False)
