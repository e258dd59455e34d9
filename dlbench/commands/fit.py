"""`dlbench fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.terminal import BUDGET_HELP, budgets_of, interrupted, number, say, tasks_of, unique
from dlbench.system import process_group


def fit(
    method: Annotated[list[str], typer.Argument(help="Methods, or paths of plugin files.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Embedded model, folder or hub name; repeatable. [nano]")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task, suite or task YAML; repeatable. [nano]")] = None,
    budget: Annotated[list[str] | None, typer.Option(metavar="SHARE|auto", help=BUDGET_HELP)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME.PARAM=VALUE", help="Set a method's parameter; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder; a `dlbench run` with the same --out uses the fits.")] = Path(
        "dlbench-out"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the first fit.")] = 0,
    fit_seeds: Annotated[int, typer.Option(help="Number of fits of each method that learns.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or int8 (weights only).")] = "float32",
    kv: Annotated[
        str | None, typer.Option(help="Policy for keys and values of skipped tokens while tuning. [the method's own]")
    ] = None,
    processes: Annotated[
        str, typer.Option(metavar="N|auto", help="Processes that share the fits; auto: as many as `run` uses.")
    ] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Fit again even where fits exist.")] = False,
) -> None:
    """Learn and tune methods on the fit split, without running them on the test documents.

    The fits that a run would make are made and kept under OUT/fits; methods with nothing to learn or tune are refused.
    """
    from dlbench.registry import methods as registry
    from dlbench.run.config import RunSpec, check_environment, parse_settings

    try:
        process_group.settle(say)
        asked = RunSpec(
            models=unique(model) or ("nano",),
            tasks=tasks_of(unique(task) or ("nano",)),
            methods=registry.expand(unique(method)),
            budgets=budgets_of(budget),
            settings=parse_settings(set_ or ()),
            limit=1,
            out=out,
            seed=seed,
            fit_seeds=fit_seeds,
            device=device,
            dtype=dtype,
            kv=kv,
            processes=number("processes", processes, "auto"),
            fit=again,
            timing=False,
        )
        asked.check()
        check_environment(asked)
        from dlbench.run.runner import fit_only

        fit_only(asked)
    except KeyboardInterrupt:
        raise interrupted("fits that were finished are kept") from None
