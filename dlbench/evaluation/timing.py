"""Times, measured apart from quality: a fresh process, settings interleaved with `full`, prefill apart from decode.

Run as `python -m dlbench.evaluation.timing JOB.json`; the job names backbone, prompts and settings, and the results go
to timing.jsonl. FLOPs are not counted here, so that a time is the engine's and the method's alone. A later run never
reuses a time. The rate per token is measured over the first tokens of a few texts; the time per document is the prefill
and that rate times the decode forwards that the quality run needed per document, so that longer outputs count as
slower.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlbench.data.thinking import Thinking
from dlbench.engine import Engine, Generation, Request, Wave
from dlbench.evaluation.resources import BUSY, Bystanders, ResourceMeter, Used
from dlbench.evaluation.settings import Conditions, Setting
from dlbench.fit.artifacts import load_artifact
from dlbench.method import Method
from dlbench.models.loading import load
from dlbench.records.jsonl import write_lines
from dlbench.records.schema import Hardware, Timing
from dlbench.registry import methods as registry
from dlbench.system import device_memory
from dlbench.system.hardware import hardware

BATCHES = (1, 16)
"""Batch sizes that are timed."""
ROUNDS = 2
"""Timed runs of each setting."""
TOKENS = 16
"""Most new tokens of a timed text; a rate per token needs no more."""
FULL_EVERY = 6
"""Number of settings between two runs of `full`, which they are compared with."""


def describe(conditions: Conditions, setting: Setting, artifact: Path | None, forwards: float) -> dict[str, Any]:
    """Return a setting as the job file holds it.

    Args:
        conditions: that it runs under.
        setting: to be timed.
        artifact: folder of its fit, if any.
        forwards: decode forwards that it needed per document.
    """
    return {
        "model": conditions.backbone.id,
        "name": setting.name,
        "params": setting.method.params(),
        "budget": setting.budget,
        "seed": setting.seed,
        "key": setting.key,
        "artifact": None if artifact is None else str(artifact),
        "forwards": forwards,
        "kv": conditions.kv(setting.method),
    }


def _method(facts: dict[str, Any], sources: dict[str, str]) -> Method | None:
    """The method of a setting; None for full depth."""
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


class DeviceTimer:
    """Times work in seconds, waiting for the device before and after."""

    def __init__(self, device: torch.device) -> None:
        self._wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def of(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Return the seconds that `work` took, and its result."""
        self._wait()
        start = time.perf_counter()
        result = work()
        self._wait()
        return time.perf_counter() - start, result


@dataclass
class TimedSetting:
    """One setting to be timed on its backbone."""

    facts: dict[str, Any]
    engine: Engine
    prompts: Sequence[Request]
    method: Method | None
    limits: Sequence[int] = ()
    """Most new tokens of each prompt as a run has them, which the method sees although less is timed."""
    written: list[Generation] = field(default_factory=list)
    """Texts of the last timed run."""

    def routes(self) -> dict[str, dict[str, Any]]:
        """By prompt, the routes of the last timed run, and the first near tie, where rounding may have decided."""
        return {
            request.id: {
                "routes": [["".join(map(str, route)), times] for route, times in generation.routes],
                "tie": min((index for index, _ in generation.near_ties), default=None),
            }
            for request, generation in zip(self.prompts, self.written, strict=False)
        }


@dataclass
class _Runs:
    """What the timed runs of one setting took."""

    prefill: float
    """Seconds per document."""
    wave: Wave
    seconds: list[float] = field(default_factory=list)
    """Of each decoding run."""
    speedups: list[float] = field(default_factory=list)
    """Rate of `full` nearby ÷ the setting's own, of each decoding run."""
    forwards: int = 1
    """Decode forwards of one run, over all rows."""
    used: Used = field(default_factory=Used)
    """By all decoding runs."""

    def timing(self, item: TimedSetting, batch: int, task: str, others_busy: float, *, is_base: bool) -> Timing:
        """Sum the runs up."""
        joules, tokens = self.used.joules, self.forwards * self.used.counted
        median = float(np.median(self.seconds))
        per_token = median / self.forwards
        return Timing(
            key=item.facts["key"],
            method=item.facts["name"],
            task=task,
            budget=item.facts["budget"],
            batch_size=batch,
            device=str(item.engine.backbone.device),
            threads=torch.get_num_threads(),
            decode_ms_per_token=1e3 * per_token,
            ms_per_document=1e3 * (per_token * item.facts["forwards"] + self.prefill),
            prefill_ms_per_document=1e3 * self.prefill,
            speedup=1.0 if is_base else float(np.median(self.speedups)),
            spread=_spread(self.seconds),
            speedup_spread=None if is_base else _spread(self.speedups),
            repeats=ROUNDS,
            kernels=item.engine.kernels,
            hardware=Hardware(**hardware(str(item.engine.backbone.device))),
            peak_bytes=self.used.peak_bytes,
            joules_per_token=None if joules is None else joules / tokens,
            others_busy=round(others_busy, 3),
            date=datetime.now(UTC).date().isoformat(),
        )


def _spread(values: Sequence[float]) -> float:
    """Interquartile range over the median."""
    low, high = np.percentile(values, [25, 75])
    return float((high - low) / np.median(values))


def measure(items: Sequence[TimedSetting], batch: int, *, routed: bool, task: str) -> list[Timing]:
    """Return the times of every setting at one batch size.

    Args:
        items: the settings; the first is `full` of the base, which each run is compared with a run of nearby.
        batch: prompts that are decoded together.
        routed: whether prompts run the method's layers only.
        task: its name.
    """
    timer = DeviceTimer(items[0].engine.backbone.device)
    full = items[0].engine.prefill(items[0].prompts[:batch])
    for _ in range(max(1, items[0].engine.warm_ups)):
        full.decode()
    runs = _prefilled(items, batch, timer, routed=routed)
    decodes = [
        partial(run.wave.decode, item.method, seed=item.facts["seed"], kv=item.facts["kv"])
        for run, item in zip(runs, items, strict=True)
    ]
    for decode, item in zip(decodes, items, strict=True):
        for _ in range(item.engine.warm_ups):
            decode()
    meter, others = ResourceMeter(items[0].engine.backbone.device), Bystanders()
    for _ in range(ROUNDS):
        for i, (decode, run) in enumerate(zip(decodes, runs, strict=True)):
            if i % FULL_EVERY == 0:
                seconds, generations = timer.of(full.decode)
                full_rate = seconds / _forwards(generations)
            with meter.adding_to(run.used):
                seconds, generations = timer.of(decode)
            run.forwards = _forwards(generations)
            items[i].written = generations
            run.seconds.append(seconds)
            run.speedups.append(full_rate / (seconds / run.forwards))
    busy = others.share()
    for decode, run in zip(decodes, runs, strict=True):
        meter.go_on(decode, run.used)
    return [
        run.timing(item, batch, task, busy, is_base=i == 0)
        for i, (run, item) in enumerate(zip(runs, items, strict=True))
    ]


def _prefilled(items: Sequence[TimedSetting], batch: int, timer: DeviceTimer, *, routed: bool) -> list[_Runs]:
    """Prefill every setting's prompts: once per backbone where prompts run every layer."""
    reads: set[int] = set()
    for item in items:
        if item.method is not None:
            reads |= item.method.reads(item.engine.backbone.depth)
    runs: list[_Runs] = []
    shared: dict[str, tuple[float, Wave]] = {}
    for item in items:
        prompts, method = item.prompts[:batch], item.method if routed else None
        if method is not None:
            seconds, wave = timer.of(partial(item.engine.prefill, prompts, method, item.facts["seed"]))
            _show_limits(wave, item)
        else:
            name = item.engine.backbone.id
            if name not in shared:
                shared[name] = timer.of(partial(item.engine.prefill, prompts, reads=reads))
                _show_limits(shared[name][1], item)
            seconds, wave = shared[name]
        runs.append(_Runs(seconds / len(prompts), wave))
    return runs


def _show_limits(wave: Wave, item: TimedSetting) -> None:
    """Let methods see the limits of a run: one that spends by them then decides as it does there."""
    wave.limits[: len(item.limits)] = item.limits[: len(wave.limits)]


def attempt(items: Sequence[TimedSetting], batch: int, *, routed: bool, task: str) -> list[Timing] | None:
    """Return what `measure` does; None where that batch does not fit the memory."""
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
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what methods and the code of models print must not stand among the reports
    job = json.loads(path.read_text())
    engines = {}
    for model, (name, dtype) in job["models"].items():
        backbone = load(name, device=job["device"], dtype=dtype, **job.get("loading", {}))
        engines[model] = Engine(backbone, metered=False, kernels="stock" if backbone.spread else job["kernels"])
    timings: list[Timing] = []
    for task in job["tasks"]:
        prompts = {model: [_request(p) for p in several] for model, several in task["prompts"].items()}
        items = [
            TimedSetting(
                facts,
                engines[facts["model"]],
                prompts[facts["model"]],
                _method(facts, job["sources"]),
                [p["limit"] for p in task["prompts"][facts["model"]]],
            )
            for facts in task["settings"]
        ]
        for batch in BATCHES:
            report: dict[str, Any] = {"done": len(items)}
            times = attempt(items, batch, routed=job["routed"], task=task["name"])
            if times is None:
                report["note"] = (
                    f"{task['name']}: no times at batch {batch}, which does not fit the memory of this device"
                )
            elif times and (busy := times[0].others_busy or 0.0) > BUSY:
                report["note"] = (
                    f"{task['name']}: other programs used {busy:.0%} of the processors while times were taken at batch "
                    f"{batch}: shares of full depth are taken side by side, milliseconds may be too long"
                )
            if times is not None:
                report["routes"] = {item.facts["key"]: item.routes() for item in items}
            timings += times or []
            print(json.dumps(report), file=reports, flush=True)
    write_lines(Path(job["out"]), timings)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
