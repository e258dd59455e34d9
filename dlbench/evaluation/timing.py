"""Times, measured apart from quality: a fresh process, settings interleaved with `full`, prefill apart from decode.

Run as `python -m dlbench.evaluation.timing JOB.json`; the job names backbone, prompts and settings, the answer is
timing.jsonl. Nothing is metered here, so a time is the engine's and the method's alone. A time is never reused by a
later run. The rate per token is measured over the first tokens of a few texts; the time per document is the prefill and
that rate over the decode forwards that the quality run needed per document, so that longer outputs count as slower.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlbench.data.thinking import Thinking
from dlbench.engine import Engine, Generation, Request, Wave
from dlbench.evaluation.settings import Place, Setting
from dlbench.fit.artifacts import load_artifact
from dlbench.method import Method
from dlbench.models.loading import load
from dlbench.records.jsonl import write_lines
from dlbench.records.schema import Timing
from dlbench.registry import methods as registry
from dlbench.system import device_memory

BATCHES = (1, 16)
ROUNDS = 2
TOKENS = 16
"""Most new tokens of a timed text; a rate per token needs no more."""
FULL_EVERY = 6
"""Settings between two runs of `full`, which they are compared with."""


def describe(place: Place, setting: Setting, artifact: Path | None, forwards: float) -> dict[str, Any]:
    """A setting as the job file holds it, with the decode forwards that it needed per document."""
    return {
        "model": place.backbone.id,
        "name": setting.name,
        "params": setting.method.params(),
        "budget": setting.budget,
        "seed": setting.seed,
        "key": setting.key,
        "artifact": None if artifact is None else str(artifact),
        "forwards": forwards,
        "kv": place.kv(setting.method),
    }


def _method(facts: dict[str, Any], sources: dict[str, str]) -> Method | None:
    if facts["name"] == "full":
        return None
    cls = registry.load(sources.get(facts["name"], facts["name"]))
    assert issubclass(cls, Method)
    if facts["artifact"] is not None:
        return load_artifact(Path(facts["artifact"]), cls)[0]
    return cls.from_params(facts["params"])


def _request(facts: dict[str, Any]) -> Request:
    thinking = facts["thinking"]
    return Request(
        facts["id"],
        tuple(facts["ids"]),
        min(facts["limit"], TOKENS),
        tuple(facts["stop"]),
        None if thinking is None else Thinking(**{**thinking, "special": tuple(thinking["special"])}),
    )


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


@dataclass
class Item:
    """One setting to be timed on its backbone."""

    facts: dict[str, Any]
    engine: Engine
    prompts: Sequence[Request]
    method: Method | None


def measure(items: Sequence[Item], batch: int, *, routed: bool, task: str) -> list[Timing]:
    """Times of every setting at one batch size, each repeat near a run of the first: `full` of the base."""
    clock = Clock(items[0].engine.backbone.device)
    reads: set[int] = set()
    for item in items:
        if item.method is not None:
            reads |= item.method.reads(item.engine.backbone.depth)
    full = items[0].engine.prefill(items[0].prompts[:batch])
    for _ in range(max(1, items[0].engine.warm_ups)):
        full.decode()
    prefills: list[float] = []
    waves: list[Wave] = []
    shared: dict[str, tuple[float, Wave]] = {}
    for item in items:
        group, method, seed = item.prompts[:batch], item.method if routed else None, item.facts["seed"]
        if method is not None:
            seconds, wave = clock.of(partial(item.engine.prefill, group, method, seed))
        else:
            name = item.engine.backbone.id
            if name not in shared:
                shared[name] = clock.of(partial(item.engine.prefill, group, reads=reads))
            seconds, wave = shared[name]
        prefills.append(seconds / len(group))
        waves.append(wave)
    decodes = [
        partial(wave.decode, item.method, seed=item.facts["seed"], kv=item.facts["kv"])
        for wave, item in zip(waves, items, strict=True)
    ]
    for decode, item in zip(decodes, items, strict=True):
        for _ in range(item.engine.warm_ups):
            decode()
    took: list[list[float]] = [[] for _ in items]
    speedups: list[list[float]] = [[] for _ in items]
    forwards = [1] * len(items)
    for _ in range(ROUNDS):
        for i, decode in enumerate(decodes):
            if i % FULL_EVERY == 0:
                seconds, generations = clock.of(full.decode)
                full_rate = seconds / _forwards(generations)
            seconds, generations = clock.of(decode)
            forwards[i] = _forwards(generations)
            took[i].append(seconds)
            speedups[i].append(full_rate / (seconds / forwards[i]))
    found = []
    for i, item in enumerate(items):
        middle = float(np.median(took[i]))
        low, high = np.percentile(took[i], [25, 75])
        per_token = middle / forwards[i]
        found.append(
            Timing(
                key=item.facts["key"],
                method=item.facts["name"],
                task=task,
                budget=item.facts["budget"],
                batch_size=batch,
                device=str(item.engine.backbone.device),
                threads=torch.get_num_threads(),
                decode_ms_per_token=1e3 * per_token,
                ms_per_document=1e3 * (per_token * item.facts["forwards"] + prefills[i]),
                prefill_ms_per_document=1e3 * prefills[i],
                speedup=1.0 if i == 0 else float(np.median(speedups[i])),
                spread=float(high - low) / middle,
                repeats=ROUNDS,
                kernels=item.engine.kernels,
            )
        )
    return found


def attempt(items: Sequence[Item], batch: int, *, routed: bool, task: str) -> list[Timing] | None:
    """What `measure` gives; None where that batch does not fit the memory."""
    try:
        return measure(items, batch, routed=routed, task=task)
    except Exception as error:
        if not device_memory.ran_out(error):
            raise
    for item in items:
        item.engine.release()
    device_memory.release()
    return None


def _forwards(generations: Sequence[Generation]) -> int:
    """Decode forwards of all rows; at least one, for a rate."""
    return max(1, sum(len(g.layers) for g in generations))


def main(path: Path) -> None:
    """Carry out a job file and print a line per finished part, for the parent's progress bar."""
    job = json.loads(path.read_text())
    engines = {}
    for model, (name, dtype) in job["models"].items():
        backbone = load(name, device=job["device"], dtype=dtype, **job.get("loading", {}))
        engines[model] = Engine(backbone, metered=False, kernels="stock" if backbone.spread else job["kernels"])
    found: list[Timing] = []
    for task in job["tasks"]:
        prompts = {model: [_request(p) for p in several] for model, several in task["prompts"].items()}
        items = [
            Item(facts, engines[facts["model"]], prompts[facts["model"]], _method(facts, job["sources"]))
            for facts in task["settings"]
        ]
        for batch in BATCHES:
            said: dict[str, Any] = {"done": len(items)}
            times = attempt(items, batch, routed=job["routed"], task=task["name"])
            if times is None:
                said["note"] = (
                    f"{task['name']}: no times at batch {batch}, which does not fit the memory of this device"
                )
            found += times or []
            print(json.dumps(said), flush=True)
    write_lines(Path(job["out"]), found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
