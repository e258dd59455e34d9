"""`dlbench bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dlbench.commands.terminal import at_home, interrupted


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller models and fewer repeats: takes minutes.")] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="PATH", callback=at_home, help="File for the measurements, written as they are made."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads. [torch's default]")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. [float32; GPU: bfloat16]")] = None,
    only: Annotated[
        str | None, typer.Option(metavar="NAME,…", help="Parts: decode, wide, requests, sweep, memory, start. [all]")
    ] = None,
) -> None:
    """Measure dlbench's own speed beside transformers' generate and lm-eval, on this machine.

    Leave the machine idle otherwise: other programs make the times longer.
    """
    from dlbench.bench.options import Options

    asked = Options(quick=quick, out=to, threads=threads, device=device, dtype=dtype, only=only)
    try:
        asked.check()
        from dlbench.bench.run import execute

        execute(asked)
    except KeyboardInterrupt:
        without = "without --json nothing is kept of an unfinished benchmark"
        raise interrupted(without if to is None else f"{to} has what was measured") from None
