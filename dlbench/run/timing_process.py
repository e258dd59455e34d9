"""Time the settings of a run in a fresh process, `dlbench.evaluation.timing`, and read its results."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError, WorkerLost
from dlbench.evaluation.settings import Setting
from dlbench.evaluation.timing import BATCHES, describe
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.run_folder import Store
from dlbench.records.schema import Timing
from dlbench.registry.methods import name_of
from dlbench.run.config import RunSpec
from dlbench.run.job import Job
from dlbench.system import lifeline, stopping, watching
from dlbench.system.files import SCRATCH, naming
from dlbench.system.process_group import LAUNCHED
from dlbench.terminal.progress import Progress


def measure_times(jobs: Sequence[Job], spec: RunSpec, device: str, store: Store, progress: Progress) -> list[Timing]:
    """Time all settings, and write timing.jsonl.

    The settings of each task are timed side by side: those of a base backbone and of the backbones derived from it.

    Args:
        jobs: of the run, with their samples in the store.
        spec: the run.
        device: the torch device.
        store: the run's folder.
        progress: shows what is timed.

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
        timings = _run(content, Path(folder), done, progress.note, spec.time_limit)
    write_lines(store.out / "timing.jsonl", timings)
    return timings


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
    """Prompts of medium length, as many as the largest batch; repeated where there are too few."""
    size = max(BATCHES)
    ordered = [p.request for batch in job.batches for p in batch]
    start = max(0, (len(ordered) - size) // 2)
    prompts = []
    for i in range(size):
        again, index = divmod(i, len(ordered))
        request = ordered[start + index]
        name = f"{request.id} again {again}" if again else request.id  # random decisions depend on it
        prompts.append(
            {
                "id": name,
                "ids": request.ids,
                "limit": request.limit,
                "stop": request.stop,
                "thinking": request.thinking and dataclasses.asdict(request.thinking),
            }
        )
    return prompts


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
) -> list[Timing]:
    """Run the timing process.

    Args:
        content: of the job file.
        folder: for the job file and the results.
        done: told the number of settings that are finished, as they finish.
        note: prints what the process has to say.
        time_limit: seconds after which it is stopped; None for no limit.

    Raises:
        DlbenchError: it failed.
        WorkerLost: it was killed or stopped.
        Stopped: the time is over.
    """
    job_file, out = folder / "job.json", folder / "timing.jsonl"
    job_file.write_text(json.dumps({**content, "out": str(out)}))
    command = [sys.executable, *lifeline.tied("dlbench.evaluation.timing"), str(job_file)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_") and k not in LAUNCHED}
    errors = folder / "errors.txt"
    with errors.open("wb") as file:
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, env=env)
        with watching.ending_stopped(worker) as given_up:
            assert worker.stdout is not None
            for line in worker.stdout:
                report = json.loads(line)
                done(report["done"])
                if "note" in report:
                    note(report["note"])
                stopping.check_time(time_limit)
            worker.wait()
    if worker.returncode:
        advice = "; --no-timing goes without it"
        if given_up or worker.returncode < 0:
            fault = given_up[0] if given_up else watching.killed_by(-worker.returncode)
            raise WorkerLost(f"the timing process (pid {worker.pid}) {fault}; the records are written{advice}")
        said = errors.read_text(errors="replace").strip().splitlines() or [f"exit code {worker.returncode}"]
        raise DlbenchError(f"the timing run failed: {said[-1]}{advice}")
    return list(read_lines(out, Timing))
