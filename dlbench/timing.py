"""Times, measured apart from quality: a fresh process, settings interleaved with `full`, prefill apart from decode.

Run as `python -m dlbench.timing JOB.json`; the job names the backbone, prompts and settings, the answer is timing.jsonl.
Nothing is metered here, so a time is the engine's and the method's alone. A time is never reused by a later run.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlbench import registry
from dlbench.backbones import load
from dlbench.engine import Engine, Request, Wave
from dlbench.fit import load_artifact
from dlbench.lines import write_lines
from dlbench.method import Method
from dlbench.plan import Setting
from dlbench.records import Timing

BATCHES = (1, 16)
ROUNDS = {1: 2, 16: 2}


def describe(setting: Setting, artifact: Path | None) -> dict[str, Any]:
    """A setting as the job file holds it."""
    return {
        "name": setting.name,
        "params": setting.method.params(),
        "budget": setting.budget,
        "key": setting.key,
        "artifact": None if artifact is None else str(artifact),
    }


def _method(item: dict[str, Any], sources: dict[str, str]) -> Method | None:
    if item["name"] == "full":
        return None
    cls = registry.load(sources.get(item["name"], item["name"]))
    assert issubclass(cls, Method)
    if item["artifact"] is not None:
        return load_artifact(Path(item["artifact"]), cls)[0]
    return cls.from_params(item["params"])


class Clock:
    """Times decoding runs of one wave, waiting for the device on both sides."""

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def of(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds that `work` took, and what it gave."""
        self._wait()
        start = time.perf_counter()
        result = work()
        self._wait()
        return time.perf_counter() - start, result


def measure(
    engine: Engine,
    prompts: Sequence[Request],
    items: Sequence[tuple[dict[str, Any], Method | None]],
    batch: int,
    *,
    seed: int,
    routed: bool,
    task: str,
) -> list[Timing]:
    """Times of every setting at one batch size, each repeat beside a run of `full`."""
    clock = Clock(engine.backbone.device)
    group = list(prompts[:batch])
    prefills: list[float] = []

    def wave(method: Method | None) -> Wave:
        seconds, made = clock.of(lambda: engine.prefill(group, method if routed else None, seed))
        prefills.append(seconds)
        return made  # type: ignore[no-any-return]

    full = wave(None)
    full.decode()  # warm-up
    waves = {id(method): wave(method) if routed and method is not None else full for _, method in items}
    seconds: list[list[float]] = [[] for _ in items]
    speedups: list[list[float]] = [[] for _ in items]
    tokens = [0] * len(items)
    for _ in range(ROUNDS[batch]):
        before, generations = clock.of(full.decode)
        full_rate = before / sum(len(g.tokens) for g in generations)
        for i, (_, method) in enumerate(items):
            mine = waves[id(method)]
            if i % 4 == 3:
                before, generations = clock.of(full.decode)
                full_rate = before / sum(len(g.tokens) for g in generations)
            took, generations = clock.of(lambda mine=mine, method=method: mine.decode(method, seed=seed))
            tokens[i] = sum(len(g.tokens) for g in generations)
            seconds[i].append(took)
            speedups[i].append(full_rate / (took / tokens[i]))
    prefill = float(np.median(prefills)) / len(group)
    found = []
    for (item, _), took, ratio, count in zip(items, seconds, speedups, tokens, strict=True):
        middle = float(np.median(took))
        spread = float(np.subtract(*np.percentile(took, [75, 25]))) / middle
        found.append(
            Timing(
                key=item["key"],
                method=item["name"],
                task=task,
                budget=item["budget"],
                batch_size=batch,
                device=str(engine.backbone.device),
                threads=torch.get_num_threads(),
                decode_ms_per_token=1e3 * middle / count,
                ms_per_document=1e3 * (middle / len(group) + prefill),
                prefill_ms_per_document=1e3 * prefill,
                speedup=1.0 if item["name"] == "full" else float(np.median(ratio)),
                spread=spread,
                repeats=len(took),
            )
        )
    return found


def main(path: Path) -> None:
    """Carry out a job file and print a line per finished part, for the parent's progress bar."""
    job = json.loads(path.read_text())
    engine = Engine(load(job["model"], device=job["device"], dtype=job["dtype"]), metered=False)
    found: list[Timing] = []
    for task in job["tasks"]:
        prompts = [Request(p["id"], tuple(p["ids"]), p["limit"], tuple(p["stop"])) for p in task["prompts"]]
        items = [(item, _method(item, job["sources"])) for item in task["settings"]]
        for batch in BATCHES:
            found += measure(
                engine, prompts, items, batch, seed=job["seed"], routed=job["routed"], task=task["name"]
            )
            print(json.dumps({"done": len(items)}), flush=True)
    write_lines(Path(job["out"]), found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
