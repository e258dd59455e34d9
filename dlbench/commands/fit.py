"""`dlbench fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.terminal import BUDGET_HELP, budgets_of, interrupted, number, say, tasks_of, tokens, unique
from dlbench.registry import kv_policies
from dlbench.system import process_group


def fit(
    method: Annotated[list[str], typer.Argument(help="Methods, or paths of plugin files.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Embedded or prefetched model, folder, GGUF file or hub name; repeatable. [nano]"),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task, suite or task YAML; repeatable. [nano]")] = None,
    budget: Annotated[list[str] | None, typer.Option(metavar="SHARE|auto", help=BUDGET_HELP)] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME.PARAM=VALUE", help="Set a method's parameter; repeatable."),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(envvar="DLBENCH_DATA", help="Folder of local mirrors (`dlbench prefetch`), tried before the hub."),
    ] = None,
    fewshot: Annotated[
        int | None, typer.Option(help="Few-shot examples in the prompt. [the task's own number]")
    ] = None,
    out: Annotated[Path, typer.Option(help="Run folder; a `dlbench run` with the same --out uses the fits.")] = Path(
        "dlbench-out"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the first fit.")] = 0,
    fit_seeds: Annotated[int, typer.Option(help="Number of fits of each method that learns.")] = 1,
    fit_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N|all", help="Most tokens of the documents that a fit learns from. [each method's bound]"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16, int8 (weights only), or auto: the model's own. [float32; CUDA: auto]"
        ),
    ] = None,
    kv: Annotated[
        str | None,
        typer.Option(
            help=f"Keys and values of skipped tokens while tuning: {', '.join(kv_policies.names())}. [the method's own]"
        ),
    ] = None,
    processes: Annotated[
        str, typer.Option(metavar="N|auto", help="Processes that share the fits; auto: as many as `run` uses.")
    ] = "auto",
    again: Annotated[bool, typer.Option("--again", help="Fit again even where fits exist.")] = False,
) -> None:
    """Learn and tune methods on the fit split, without running them on the test documents.

    The fits that a run would make are made and kept under OUT/fits; methods with nothing to learn or tune are refused.
    """
    from dlbench.data.task_options import Sources
    from dlbench.registry import methods as registry
    from dlbench.run.config import RunSpec, check_environment, parse_settings

    try:
        process_group.settle(say)
        names, sources = unique(task) or ("nano",), Sources(data_dir, fewshot=fewshot)
        sources.check(names)
        asked = RunSpec(
            models=unique(model) or ("nano",),
            tasks=tasks_of(names, sources),
            methods=registry.expand(unique(method)),
            budgets=budgets_of(budget),
            settings=parse_settings(set_ or ()),
            limit=1,
            out=out,
            seed=seed,
            fit_seeds=fit_seeds,
            fit_tokens=tokens(fit_tokens),
            device=device,
            dtype=dtype,
            kv=kv,
            processes=number("processes", processes, "auto"),
            fit=again,
            timing=False,
            sources=sources,
        )
        asked.check()
        check_environment(asked)
        from dlbench.run.runner import fit_only

        fit_only(asked)
    except KeyboardInterrupt as stop:
        raise interrupted(stop, "fits that were finished are kept") from None
