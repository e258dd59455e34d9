"""Peak memory of one run at full depth, each side in a process of its own: `python -m dlbench.bench.memory JOB`."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from dlbench.bench.decode import Generate
from dlbench.bench.models import Shape, random_llama, random_requests
from dlbench.bench.workbench import Workbench
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.methods.static_skip import StaticSkip
from dlbench.system.lifeline import python_command

BATCH = 16
_SIDES = ("generate", "dlbench")


def memory(bench: Workbench) -> None:
    """Measure peak memory beside generate's, and the cache of a static half beside that of full depth."""
    sizes = bench.sizes
    group = f"peak, {sizes.wide}, batch {BATCH}"
    bench.say(f"memory: {group}")
    peaks: dict[str, list[float]] = {side: [] for side in _SIDES}
    for _ in range(sizes.memory_rounds):
        for side in _SIDES:
            peaks[side].append(_in_a_process(bench, side))
    for side in _SIDES:
        bench.keep("memory", group, side, "MB", peaks[side])
    quotients = [stock / ours for stock, ours in zip(*peaks.values(), strict=True)]
    bench.ratio("peak_memory_ratio", quotients, "the whole process, nothing subtracted")
    _caches(bench)


def _caches(bench: Workbench) -> None:
    shape = bench.sizes.narrow
    engine = bench.engine(random_llama(shape, device=bench.device, dtype=bench.dtype))
    requests = random_requests(BATCH, bench.sizes.prompt, bench.sizes.narrow_tokens, shape.vocabulary)
    half = StaticSkip(share=0.5)
    held: dict[str, float] = {}
    for name, method in (("full", None), ("static 50 %, prompt routed", half)):
        wave = engine.prefill(requests, method)
        wave.decode(method)
        held[name] = wave.nbytes() / 1e6
        bench.keep("memory", f"cache, {shape}, batch {BATCH}", name, "MB", [held[name]])
    whole, routed = held.values()
    bench.ratio("cache_static50_routed_ratio", [whole / routed])


def _in_a_process(bench: Workbench, side: str) -> float:
    job = {
        "side": side,
        "shape": dataclasses.asdict(bench.sizes.wide),
        "prompt": bench.sizes.prompt,
        "tokens": bench.sizes.wide_tokens,
        "device": bench.device,
        "dtype": bench.dtype,
        "threads": bench.threads,
    }
    command = python_command("-m", "dlbench.bench.memory", json.dumps(job))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise DlbenchError(f"the memory of {side} could not be measured: {lines[-1]}")
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mb"])


def peak_mb(device: torch.device) -> float:
    """Return the peak memory of this process in MB: on the device, or in main memory where that is a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    # ru_maxrss includes what the parent held when it forked this process; VmHWM does not.
    status = Path("/proc/self/status")
    if status.is_file() and (mark := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(mark[1]) * 1024 / 1e6
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / 1e6 if sys.platform == "darwin" else held * 1024 / 1e6


def run(job: dict[str, Any]) -> float:
    """Decode once on one side, and return the peak in MB."""
    torch.set_num_threads(job["threads"])
    shape = Shape(**job["shape"])
    backbone = random_llama(shape, device=job["device"], dtype=job["dtype"])
    requests = random_requests(BATCH, job["prompt"], job["tokens"], shape.vocabulary)
    if job["side"] == "generate":
        from dlbench.bench.clock import Stopwatch

        Generate(backbone, requests, Stopwatch(backbone.device))()
    else:
        Engine(backbone).prefill(requests).decode()
    return peak_mb(backbone.device)


if __name__ == "__main__":
    print(json.dumps({"peak_mb": run(json.loads(sys.argv[1]))}))
