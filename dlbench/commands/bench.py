"""`dlbench bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.options import declared
from dlbench.commands.options.terminal import at_home, interrupted, unique
from dlbench.errors import DlbenchError


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller models and fewer repeats: takes minutes.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "--output-path",
            "-o",
            metavar="FILE",
            callback=at_home,
            help="JSON file for the measurements, written as they are made.",
        ),
    ] = None,
    as_json: declared.AsJson = False,
    threads: Annotated[int | None, typer.Option(help="CPU threads. [torch's default]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. [float32; GPU: bfloat16]")] = None,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…", help="Parts: decode, wide, requests, sweep, memory, start. [all; of --model the 1st, 3rd]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Benchmark this model: an embedded one, a folder or a hub name. [models of random weights]",
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            "--tasks",
            "-t",
            help="Task or suite to time --model on; several by comma. [nano, or pocket for other models; --quick: one]",
        ),
    ] = None,
    fewshot: Annotated[
        int | None,
        typer.Option(
            "--fewshot",
            "--num-fewshot",
            "-f",
            help="Few-shot examples in the prompt. [the task's own]",
        ),
    ] = None,
    data_dir: declared.DataDir = None,
) -> None:
    """Measure dlbench's own speed beside transformers' generate and lm-eval, on this machine.

    Leave the machine idle otherwise: other programs make the times longer. How long it will take is said at the start.
    """
    from dlbench.bench.options import Options, Subject

    if model is None and (task or fewshot is not None):
        raise DlbenchError("--task and --fewshot are for a --model: give one, such as --model nano")
    subject = None if model is None else Subject.of(model, unique(task), data_dir, fewshot, quick=quick)
    asked = Options(
        quick=quick, out=out, threads=threads, device=device, dtype=dtype, only=only, subject=subject, as_json=as_json
    )
    try:
        asked.check()
        from dlbench.bench.run import execute

        execute(asked)
    except KeyboardInterrupt as stop:
        without = "without --out nothing is kept of an unfinished benchmark"
        raise interrupted(stop, without if out is None else f"{out} has what was measured") from None
