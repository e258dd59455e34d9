"""One run of the benchmark: prepare the machine, measure the chosen parts, print and write the results."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from dlbench import __version__
from dlbench.bench.any_model import ModelBench
from dlbench.bench.decode import decode, wide
from dlbench.bench.duration import expected, minutes
from dlbench.bench.memory import memory
from dlbench.bench.models import Sizes, sizes
from dlbench.bench.options import Options
from dlbench.bench.report import as_json, show
from dlbench.bench.requests import requests
from dlbench.bench.start import start
from dlbench.bench.sweep import sweep
from dlbench.bench.targets import PARTS
from dlbench.bench.workbench import Workbench
from dlbench.models.catalog import resolve_device
from dlbench.system import cpu
from dlbench.system.hardware import torch_threads
from dlbench.terminal.progress import Progress

_RUN: dict[str, Callable[[Workbench], None]] = {
    "decode": decode,
    "wide": wide,
    "requests": requests,
    "sweep": sweep,
    "memory": memory,
    "start": start,
}
assert list(_RUN) == list(PARTS)


def execute(options: Options) -> None:
    """Carry out a benchmark run.

    Raises:
        DlbenchError: the machine has no such device.
    """
    device = resolve_device(options.device)
    cuda = device.startswith("cuda")
    content = measure(
        sizes(quick=options.quick, cuda=cuda, subject=options.subject),
        device=device,
        dtype=options.dtype or ("bfloat16" if cuda else "float32"),
        threads=options.threads,
        parts=options.parts(),
        out=options.out,
        console=Console(stderr=True) if options.as_json else None,
    )
    if options.as_json:
        print(_text(content))


def measure(
    chosen: Sizes,
    *,
    device: str,
    dtype: str,
    threads: int | None = None,
    parts: Sequence[str] = tuple(PARTS),
    out: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Measure, print, and write.

    Args:
        chosen: sizes of models, batches and repeats.
        device: a torch device.
        dtype: of all weights.
        threads: torch's threads; None leaves them as they are.
        parts: keys of PARTS.
        out: the JSON file, written as measuring goes on, so that an interrupted run leaves one; None writes none.
        console: where to print; the terminal unless given.

    Returns:
        What the JSON file holds.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    with torch_threads(threads):
        bench = Workbench(chosen, device, dtype, torch.get_num_threads())
        report = _Report(bench, machine_facts(device), out)
        with Progress(shown=True) as progress, progress.bar("bench", len(parts)) as done:

            def say(what: str) -> None:
                done(0, what)
                report.save()

            bench.say = say
            run, takes = _parts(bench, parts)
            progress.console.print(f"takes {takes}", markup=False, highlight=False)
            for part in parts:
                begun = time.perf_counter()
                run[part]()
                report.seconds[part] = time.perf_counter() - begun
                if device.startswith("cuda"):
                    torch.cuda.empty_cache()
                done(1)
    show(console or Console(), bench, report.machine, report.seconds)
    return report.save(last=True)


def _parts(bench: Workbench, parts: Sequence[str]) -> tuple[dict[str, Callable[[], None]], str]:
    """What carries out each part, and how long these parts will take."""
    subject = bench.sizes.subject
    if subject is None:
        return {part: partial(work, bench) for part, work in _RUN.items()}, expected(bench.sizes, parts)
    model = ModelBench(bench, subject)
    takes = f"at most about {minutes(model.forecast(parts))}: {', '.join(parts)} of {model.backbone.name}"
    return {"decode": model.decode, "requests": model.requests}, takes


@dataclass
class _Report:
    """The JSON file, which is written as measuring goes on."""

    bench: Workbench
    machine: dict[str, Any]
    out: Path | None
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall time of each part."""

    def save(self, *, last: bool = False) -> dict[str, Any]:
        """Write what was measured so far, and return it."""
        content = as_json(self.bench, self.machine, self.seconds)
        out = self.out
        if out is not None and (last or out.is_file() or not out.exists()):  # to a pipe it is written once
            out.write_text(_text(content) + "\n")
        return content


def _text(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def machine_facts(device: str) -> dict[str, Any]:
    """The machine and the versions, and how busy it was at the start."""
    return {
        "device": device,
        "processor": torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu.name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {
            "dlbench": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("torch", "transformers", "lm_eval")},
        },
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
