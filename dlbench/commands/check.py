"""`dlbench check`."""

from __future__ import annotations

from typing import Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import echo, unique
from dlbench.errors import DlbenchError


def check(
    method: Annotated[
        list[str],
        typer.Argument(autocompletion=declared.method_names, help="Methods, paths of plugin files, `core` or `all`."),
    ],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder or hub name of a model to check on. [a tiny random one]")
    ] = None,
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Task whose fit split is used with --model. [nano_summary]")
    ] = None,
    data_dir: declared.DataDir = None,
    audit: Annotated[
        bool,
        typer.Option("--audit", help="Look for what no measurement may contain instead, see docs/audits.md."),
    ] = False,
) -> None:
    """Check that methods keep the contract of the plugin interface, on a tiny model: what fails, and how to mend it.

    A method that learns is fitted for a few steps only. The same checks run in pytest: see `dlbench.testing`. With
    --audit each decodes in a process of its own, and its routes are replayed in one that never loaded it.
    """
    from dlbench.registry import methods as registry

    given = registry.expand(unique(method))
    if audit:
        from dlbench.audit.isolated.report import report

        if found := report(given, model, task, data_dir, echo):
            raise DlbenchError(f"{found} audits found something; see above, and docs/audits.md for what it means")
        return
    from dlbench.audit.method_case import Bench
    from dlbench.audit.report import check as check_all

    left_out = registry.unusable(unique(method))
    bench = (
        Bench.tiny() if model is None and task is None else Bench.of(model or "nano", task or "nano_summary", data_dir)
    )
    failed = check_all([*given, *left_out], bench, echo)
    if failed:
        raise DlbenchError(f"{failed} clauses of the contract do not hold; see above")
