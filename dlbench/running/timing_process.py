"""Time the settings of a run in a fresh process, `dlbench.evaluation.timing`, and read its results."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError, WorkerLost
from dlbench.evaluation.settings import Setting
from dlbench.evaluation.timing import BATCHES, describe
from dlbench.prompting.batching import typical
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.run_folder import Store
from dlbench.records.schema import Sample, Timing
from dlbench.registry.methods import name_of
from dlbench.running.config import RunSpec
from dlbench.running.job import Job
from dlbench.system import lifeline, stopping, watching
from dlbench.system.files import SCRATCH, naming
from dlbench.system.process_group import LAUNCHED
from dlbench.terminal.progress import Progress

Routes = dict[str, dict[str, dict[str, Any]]]
"""Content key → document → `TimedSetting.routes`."""
_DIFFERENT = 0.1
"""Largest share of the timed texts that may run other layers than in the samples; one always may."""


def measure_times(
    jobs: Sequence[Job], spec: RunSpec, device: str, store: Store, progress: Progress
) -> tuple[list[Timing], dict[str, str]]:
    """Time all settings, and write timing.jsonl.

    The settings of each task are timed side by side: those of a base backbone and of the backbones derived from it.

    Args:
        jobs: of the run, with their samples in the store.
        spec: the run.
        device: the torch device.
        store: the run's folder.
        progress: shows what is timed.

    Returns:
        The times, and the content keys of rows whose methods decided otherwise while they were timed, with how; such
        a row has no time.

    Raises:
        DlbenchError: the timing process failed.
    """
    jobs = [job for job in jobs if not job.conditions.task.is_loglikelihood]  # nothing is decoded there
    amount = sum(len(job.settings) * len(BATCHES) for job in jobs)
    with progress.bar("time", amount) as done, _scratch(store.out) as folder:
        done(0, "batch " + " and ".join(map(str, BATCHES)))
        backbones = [job.engine.backbone for job in jobs]
        content = {
            "models": {b.id: (b.source, b.dtype) for b in backbones},
            "device": device,
            "kernels": spec.kernels,
            "loading": spec.loading,
            "routed": spec.prompt == "routed",
            "sources": {name_of(m): m for m in spec.methods},
            "tasks": [_task(base, jobs, store) for base in jobs if base.base is None],
        }
        timings, routes = _run(content, Path(folder), done, progress.note, spec.time_limit)
    otherwise = _otherwise(jobs, routes, store)
    timings = [timing for timing in timings if timing.key not in otherwise]
    write_lines(store.out / "timing.jsonl", timings)
    return timings, otherwise


def _otherwise(jobs: Sequence[Job], routes: Sequence[Routes], store: Store) -> dict[str, str]:
    """Rows whose routes in some timed batch are not those of their samples, by content key.

    A draft's rounds follow its limit, and so do its routes; of a method that depends on its batch nothing is known.
    """
    found: dict[str, str] = {}
    for setting in (s for job in jobs for s in job.settings if not s.method.batch_dependent):
        for timed in (batch[setting.key] for batch in routes if setting.key in batch):
            samples = store.samples(setting.key)
            both = [id_ for id_ in timed if id_ in samples and samples[id_].speculation is None]
            other = [id_ for id_ in both if differs(samples[id_], timed[id_])]
            if len(other) > max(1, _DIFFERENT * len(both)):
                found[setting.key] = (
                    f"it runs other layers while it is timed than in its samples: for {len(other)} of {len(both)} "
                    f"documents, such as {other[0]!r}"
                )
    return found


def differs(sample: Sample, timed: Mapping[str, Any]) -> bool:
    """Whether a timed text ran other layers than a sample's first tokens, and not after a near tie."""
    ran = [route for route, times in sample.routes for _ in range(times)]
    now = [route for route, times in timed["routes"] for _ in range(times)]
    first = next((i for i, (one, other) in enumerate(zip(ran, now, strict=False)) if one != other), None)
    ties = [index for index, _ in sample.near_ties] + ([] if timed["tie"] is None else [timed["tie"]])
    return first is not None and not any(index <= first + 1 for index in ties)


def _task(base: Job, jobs: Sequence[Job], store: Store) -> dict[str, Any]:
    """A task as the job file holds it: prompts by backbone, and settings."""
    together = [base, *(job for job in jobs if job.base is base)]
    return {
        "name": base.conditions.task.name,
        "prompts": {job.engine.backbone.id: _prompts(job) for job in together},
        "settings": [
            describe(job.conditions, s, job.artifacts.get(s.key), _forwards(job, s, store))
            for job in together
            for s in job.settings
        ],
    }


def _prompts(job: Job) -> list[dict[str, object]]:
    """Prompts of medium length, as many as the largest batch."""
    prompted = [p for batch in job.batches for p in batch]
    return [
        {
            "id": request.id,
            "ids": request.ids,
            "limit": request.limit,
            "stop": request.stop,
            "thinking": request.thinking and dataclasses.asdict(request.thinking),
        }
        for request in typical(prompted, max(BATCHES))
    ]


def _forwards(job: Job, setting: Setting, store: Store) -> float:
    """Mean decode forwards per document."""
    samples = store.samples(setting.key)
    return sum(len(samples[d.id].layers) for d in job.documents) / len(job.documents)


def _scratch(out: Path) -> tempfile.TemporaryDirectory[str]:
    """Make a folder in the run's, so that the next run removes it if this one is killed."""
    with naming(out):
        return tempfile.TemporaryDirectory(prefix=".timing-", suffix=SCRATCH, dir=out)


def _run(
    content: Mapping[str, object],
    folder: Path,
    done: Callable[[int], None],
    note: Callable[[str], None],
    time_limit: float | None,
) -> tuple[list[Timing], list[Routes]]:
    """Run the timing process; returns the times, and the routes of each task and batch size.

    Args:
        content: of the job file.
        folder: for the job file and the results.
        done: told the number of settings that are finished, as they finish.
        note: prints what the process has to say.
        time_limit: seconds after which it is ended, whatever it does; None for no limit.

    Raises:
        DlbenchError: it failed.
        WorkerLost: it was killed or stopped.
        Stopped: the time is over.
    """
    job_file, out = folder / "job.json", folder / "timing.jsonl"
    job_file.write_text(json.dumps({**content, "out": str(out)}))
    command = [*lifeline.tied("dlbench.evaluation.timing"), str(job_file)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_") and k not in LAUNCHED}
    errors = folder / "errors.txt"
    routes: list[Routes] = []
    with errors.open("wb") as file:
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=env)
        with watching.ending_stopped(worker, partial(stopping.is_over, time_limit)) as given_up:
            assert worker.stdout is not None
            for line in worker.stdout:
                report = json.loads(line)
                done(report["done"])
                if "note" in report:
                    note(report["note"])
                routes.append(report.get("routes", {}))
            worker.wait()
    if worker.returncode < 0 and not given_up:
        stopping.check_time(time_limit)
    if worker.returncode:
        advice = "; --no-timing goes without it"
        if given_up or worker.returncode < 0:
            fault = given_up[0] if given_up else watching.killed_by(-worker.returncode)
            raise WorkerLost(f"the timing process (pid {worker.pid}) {fault}; the records are written{advice}")
        said = errors.read_text(errors="replace").strip().splitlines() or [f"exit code {worker.returncode}"]
        raise DlbenchError(f"the timing run failed: {said[-1]}{advice}")
    if not out.is_file():
        raise DlbenchError("the timing run ended before it was done; --no-timing goes without it")
    return list(read_lines(out, Timing)), routes
