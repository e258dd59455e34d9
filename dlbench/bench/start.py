"""Costs of the first use, which no other part times: imports, loading, preparing an engine."""

from __future__ import annotations

import subprocess

from dlbench.bench.models import random_llama, random_requests
from dlbench.bench.workbench import Workbench
from dlbench.errors import DlbenchError
from dlbench.models.loading import load
from dlbench.system.lifeline import python_command

_IMPORTS = {"import dlbench.engine": "dlbench.engine", "import lm-eval's hf": "lm_eval.models.huggingface"}


def start(bench: Workbench) -> None:
    """Time imports in fresh processes; loading, preparing an engine and its first step in this one."""
    rounds = bench.sizes.start_rounds
    bench.say("start: imports, loading, preparing")
    for name, module in _IMPORTS.items():
        bench.keep("start", "first use", name, "s", [import_seconds(module) for _ in range(rounds)])
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        took, nano = bench.watch.of(lambda: load("nano", device=bench.device, dtype=bench.dtype))
        seconds.setdefault("load nano", []).append(took)
        wide = random_llama(bench.sizes.wide, device=bench.device, dtype=bench.dtype)
        for label, backbone in (("nano", nano), (str(bench.sizes.wide), wide)):
            took, engine = bench.watch.of(lambda backbone=backbone: bench.engine(backbone))  # type: ignore[misc]
            seconds.setdefault(f"prepare an engine, {label}", []).append(took)
            vocabulary = int(backbone.model.config.vocab_size)
            request = random_requests(1, 16, 2, vocabulary)
            took, _ = bench.watch.of(lambda engine=engine, request=request: engine.prefill(request).decode())  # type: ignore[misc]
            seconds.setdefault(f"first step, {label}", []).append(took)
    for name, values in seconds.items():
        bench.keep("start", "first use", name, "s", values)


def import_seconds(module: str) -> float:
    """Return the seconds that an import takes in a fresh process, without the interpreter's own start."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run(python_command("-c", code), capture_output=True, text=True, check=False)
    if done.returncode:
        raise DlbenchError(f"{module} could not be imported in a process of its own: {done.stderr.strip()[-300:]}")
    return float(done.stdout.split()[-1])
