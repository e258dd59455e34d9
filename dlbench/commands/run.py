"""`dlbench run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.terminal import interrupted, number, unique


def run(
    model: Annotated[list[str] | None, typer.Option(help="Embedded name, folder or hub name; repeat. [nano]")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task, suite or task YAML; repeat. [nano]")] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Method, path of a plugin file, `core` or `all`; repeat. [core]")
    ] = None,
    budget: Annotated[
        list[float] | None, typer.Option(help="Target share of the layers, in (0, 1]; repeat. [0.25 0.5 0.75]")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME.PARAM=VALUE", help="Set a method's parameter; repeat.")
    ] = None,
    limit: Annotated[str, typer.Option(metavar="N|all", help="Documents per task.")] = "32",
    out: Annotated[Path, typer.Option(help="Folder for records, samples and the site.")] = Path("dlbench-out"),
    batch_size: Annotated[
        str, typer.Option(metavar="N|auto", help="Documents decoded together; auto: as many as fit, 48 or (GPU) 256.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or int8 (weights only).")] = "float32",
    prompt: Annotated[str, typer.Option(help="full: prompts run every layer; routed: the method's layers.")] = "full",
    kv: Annotated[
        str | None,
        typer.Option(help="Keys and values of skipped tokens: project, evict or recompute. [the method's own]"),
    ] = None,
    kernels: Annotated[
        str, typer.Option(help="auto: fused layers where proved equal; stock: the model's own.")
    ] = "auto",
    processes: Annotated[int, typer.Option(help="Processes that share the documents.")] = 1,
    fit: Annotated[bool, typer.Option("--fit/--no-fit", help="Fit methods again, though fitted ones exist.")] = False,
    fit_seeds: Annotated[int, typer.Option(help="Fits of each method that learns; each is a row.")] = 1,
    timing: Annotated[bool, typer.Option("--timing/--no-timing", help="Measure times after the quality run.")] = True,
) -> None:
    """Run methods on tasks, and write records and a leaderboard.

    The same command started again continues where it stopped.
    """
    from dlbench import harness, registry, spec

    try:
        asked = spec.RunSpec(
            models=unique(model) or ("nano",),
            tasks=tuple(harness.expand_tasks(unique(task) or ("nano",))),
            methods=registry.expand(unique(method) or ("core",)),
            budgets=tuple(dict.fromkeys(budget or (0.25, 0.5, 0.75))),
            settings=spec.parse_settings(set_ or ()),
            limit=number("limit", limit, "all"),
            out=out,
            batch_size=number("batch size", batch_size, "auto"),
            seed=seed,
            device=device,
            dtype=dtype,
            prompt=prompt,  # type: ignore[arg-type]  # checked in the next line
            kv=kv,
            kernels=kernels,  # type: ignore[arg-type]  # checked likewise
            processes=processes,
            fit=fit,
            fit_seeds=fit_seeds,
            timing=timing,
        )
        asked.check()
        spec.check_environment(asked)
        from dlbench.runner import execute

        execute(asked)
    except KeyboardInterrupt:
        raise interrupted("the same command continues where it stopped") from None
