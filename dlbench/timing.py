"""Times, measured apart from quality: a fresh process, settings interleaved with `full`, prefill apart from decode.

Run as `python -m dlbench.timing JOB.json`; the job names backbone, prompts and settings, the answer is timing.jsonl.
Nothing is metered here, so a time is the engine's and the method's alone. A time is never reused by a later run. The
rate per token is measured over the first tokens of a few texts; the time per document is the prefill and that rate over
the decode forwards that the quality run needed per document, so that longer outputs count as slower.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlbench import registry
from dlbench.backbones import load
from dlbench.engine import Engine, Generation, Request
from dlbench.fit import load_artifact
from dlbench.lines import write_lines
from dlbench.method import Method
from dlbench.plan import Setting
from dlbench.records import Timing

BATCHES = (1, 16)
ROUNDS = 2
TOKENS = 16
"""Most new tokens of a timed text; a rate per token needs no more."""
FULL_EVERY = 6
"""Settings between two runs of `full`, which they are compared with."""


def describe(setting: Setting, artifact: Path | None, forwards: float) -> dict[str, Any]:
    """A setting as the job file holds it, with the decode forwards that it needed per document."""
    return {
        "name": setting.name,
        "params": setting.method.params(),
        "budget": setting.budget,
        "key": setting.key,
        "artifact": None if artifact is None else str(artifact),
        "forwards": forwards,
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
    full = engine.prefill(group)
    full.decode()  # warm-up
    prefills: list[float] = []
    waves = []
    for _, method in items:
        if routed and method is not None:
            seconds, wave = clock.of(partial(engine.prefill, group, method, seed))
        elif not prefills:
            seconds, wave = clock.of(partial(engine.prefill, group))
        else:
            seconds, wave = prefills[0], full
        prefills.append(seconds)
        waves.append(wave)
    took: list[list[float]] = [[] for _ in items]
    speedups: list[list[float]] = [[] for _ in items]
    forwards = [1] * len(items)
    for _ in range(ROUNDS):
        for i, (wave, (_, method)) in enumerate(zip(waves, items, strict=True)):
            if i % FULL_EVERY == 0:
                seconds, generations = clock.of(full.decode)
                full_rate = seconds / _forwards(generations)
            seconds, generations = clock.of(partial(wave.decode, method, seed=seed))
            forwards[i] = _forwards(generations)
            took[i].append(seconds)
            speedups[i].append(full_rate / (seconds / forwards[i]))
    found = []
    for i, (item, _) in enumerate(items):
        middle = float(np.median(took[i]))
        low, high = np.percentile(took[i], [25, 75])
        prefill, per_token = prefills[i] / len(group), middle / forwards[i]
        found.append(
            Timing(
                key=item["key"],
                method=item["name"],
                task=task,
                budget=item["budget"],
                batch_size=batch,
                device=str(engine.backbone.device),
                threads=torch.get_num_threads(),
                decode_ms_per_token=1e3 * per_token,
                ms_per_document=1e3 * (per_token * item["forwards"] + prefill),
                prefill_ms_per_document=1e3 * prefill,
                speedup=1.0 if item["name"] == "full" else float(np.median(speedups[i])),
                spread=float(high - low) / middle,
                repeats=ROUNDS,
            )
        )
    return found


def _forwards(generations: Sequence[Generation]) -> int:
    """Decode forwards of all rows; at least one, for a rate."""
    return max(1, sum(len(g.layers) for g in generations))


def main(path: Path) -> None:
    """Carry out a job file and print a line per finished part, for the parent's progress bar."""
    job = json.loads(path.read_text())
    engine = Engine(load(job["model"], device=job["device"], dtype=job["dtype"]), metered=False)
    found: list[Timing] = []
    for task in job["tasks"]:
        prompts = [
            Request(p["id"], tuple(p["ids"]), min(p["limit"], TOKENS), tuple(p["stop"])) for p in task["prompts"]
        ]
        items = [(item, _method(item, job["sources"])) for item in task["settings"]]
        for batch in BATCHES:
            found += measure(engine, prompts, items, batch, seed=job["seed"], routed=job["routed"], task=task["name"])
            print(json.dumps({"done": len(items)}), flush=True)
    write_lines(Path(job["out"]), found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
