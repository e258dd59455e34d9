"""Carry out a run: fit, decode, score, record, time, and build the board.

Also the entry of worker processes: `python -m dlbench.run.runner SPEC.json`, started by `dlbench.system.processes`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from dlbench import __version__
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.evaluation import oracle as ceiling
from dlbench.evaluation import timing
from dlbench.evaluation.aggregate import Reference, build
from dlbench.evaluation.generation import QualityRun, total
from dlbench.evaluation.rescoring import rescore
from dlbench.evaluation.settings import Setting
from dlbench.models.backbone import EMBEDDED, embedded_folder
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.run_folder import Store
from dlbench.records.schema import Asked, Record, Timing
from dlbench.registry.methods import name_of
from dlbench.run.config import RunSpec, resolve_device
from dlbench.run.planner import Job, Planner
from dlbench.run.summary import show_fits, show_results
from dlbench.system import process_group
from dlbench.system.paths import model_folder
from dlbench.system.processes import WAIT, cores, launch, own_threads, suitable, tell
from dlbench.terminal.progress import Progress


def execute(spec: RunSpec) -> list[Record]:
    """Carry out a run.

    Raises:
        DlbenchError: something cannot be done as asked.
    """
    if (processes := _processes(spec, spec.limit)) > 1:
        launch("dlbench.run.runner", spec, processes, "run")
        return list(read_lines(spec.out / "records.jsonl", Record))
    return Runner(spec).run()


def fit_only(spec: RunSpec) -> None:
    """Carry out the fits of a run, and show them.

    Raises:
        DlbenchError: something cannot be done as asked.
    """
    if (processes := _processes(spec, None)) > 1:
        launch("dlbench.run.runner", spec, processes, "fit")
    else:
        Runner(spec).fit()


def _processes(spec: RunSpec, documents: int | None) -> int:
    """How many must be started: 1 where this one has been."""
    if process_group.launched():
        return 1
    if spec.processes is not None:
        return spec.processes
    folders = [embedded_folder(m) if m in EMBEDDED else model_folder(m) or Path(m) for m in spec.models]
    # Processes talk to each other through sockets, and an offline run opens none unasked.
    alone = spec.offline or spec.device_map
    return 1 if alone else suitable(folders, resolve_device(spec.device), documents)


class Runner:
    """The state of one process of a run."""

    def __init__(self, spec: RunSpec) -> None:
        device = resolve_device(spec.device)
        with own_threads():
            self.state = PartialState(cpu=device == "cpu", timeout=WAIT)
        if self.state.num_processes > 1:
            torch.set_num_threads(max(1, cores() // self.state.num_processes))
            device = str(self.state.device)
        self.spec, self.device = spec, device
        self.main = self.state.is_main_process
        self.store = Store(spec.out)
        self.progress = Progress(shown=self.main)
        self.started = time.time()

    def run(self) -> list[Record]:
        """Do everything; only the main process returns records."""
        planner = self._planner()
        jobs = planner.load()
        self._open()
        with self.progress:
            planner.settle(jobs)
            self._decode(jobs)
            self.state.wait_for_everyone()
            if not self.main:
                return []
            records = [r for job in jobs for r in self._records(job)]
            write_lines(self.store.out / "records.jsonl", records)
            write_lines(self.store.out / "documents.jsonl", _asked(jobs))
            wanted = self.spec.timing and any(not job.place.task.is_loglikelihood for job in jobs)
            times = self._times(jobs) if wanted else []
        show_results(self.store, records, times, (time.time() - self.started) / 60)
        return records

    def _planner(self) -> Planner:
        return Planner(self.spec, self.device, self.progress, self.state.num_processes, self._meet)

    def _meet(self, word: str) -> str:
        """Wait for all processes; returns the word of the main one."""
        words = [word]
        broadcast_object_list(words)
        self.state.wait_for_everyone()
        return words[0]

    def _open(self) -> None:
        """Make the run's folder; all processes go on when it is there."""
        if self.main:
            asked = json.loads(json.dumps(dataclasses.asdict(self.spec), default=str))
            self.store.open({"dlbench": __version__, "spec": asked})
        self.state.wait_for_everyone()

    def fit(self) -> None:
        """Fit what a run would fit, and nothing else."""
        planner = self._planner()
        jobs = planner.load()
        self._open()
        with self.progress:
            planner.settle(jobs)
        if self.main:
            show_fits(jobs)

    # ---- quality

    def _decode(self, jobs: Sequence[Job]) -> None:
        index, count = self.state.process_index, self.state.num_processes
        amount = sum(total(job.batches, job.everything, index, count) for job in jobs)
        with self.progress.bar("decode", amount) as done:
            for job in jobs:
                run = QualityRun(
                    job.engine,
                    job.place.task,
                    self.store,
                    self.spec.prompt == "routed",
                    job.place.kv,
                    index,
                    count,
                    job.slots,
                    auto=self.spec.batch_size is None,
                    note=self._note,
                )
                done(0, f"{job.place.task.name} · {job.engine.backbone.name}")
                run.run(job.batches, job.everything, done)

    def _note(self, line: str) -> None:
        """Tell people, whichever process this is."""
        if self.main:
            self.progress.note(line)
        else:
            print(f"process {self.state.process_index}: {line}", file=sys.stderr, flush=True)

    def _records(self, job: Job) -> list[Record]:
        order = [d.id for d in job.documents]
        for setting in job.everything:
            self.store.merge(setting.key, order)
        self._rescore(job)
        samples = {s.key: self.store.samples(s.key) for s in job.everything}
        anchor = job.base or job
        full = self.store.samples(anchor.settings[0].key)
        backbone = anchor.engine.backbone
        stand_in = backbone.sha256 != backbone.base_sha256
        base = Reference(backbone.depth, anchor.engine.costs, full, stand_in)
        notes = []
        if job.place.generation != anchor.place.generation:
            notes.append("its generation_config asks for something else than its base's: another track than the base")
        found = []
        for setting in job.settings:
            rows = [samples[setting.key][id_] for id_ in order]
            smaller = job.engine.backbone.depth < base.depth
            kind = "dense" if smaller and setting.name == "full" else "method"
            row = build(job.place, setting, job.documents, rows, base, self._env(job), kind=kind, notes=notes)
            found.append(row)
        for given, (oracle, settings) in job.oracles.items():
            found += ceiling.rows(
                job.place,
                given,
                oracle,
                settings,
                self.spec.budgets,
                job.documents,
                samples,
                base,
                self.store,
                self._env(job),
            )
        return found

    def _rescore(self, job: Job) -> None:
        """Bring the scores of samples that were there before this run up to date."""
        task, keys = job.place.task, [s.key for s in job.everything]
        where = f"{task.name} on {job.engine.backbone.name}"
        if not any(map(self.store.from_earlier_run, keys)):
            return
        with self.progress.stage(f"what was there of {where}", "score") as say:
            changed = rescore(task, job.documents, self.store, keys, say)
        if changed:
            self._note(f"{where}: {changed:,} samples of earlier runs are scored anew: the task's scoring has changed")

    def _env(self, job: Job) -> dict[str, str]:
        engine = job.engine
        asked = "" if job.place.task.is_loglikelihood else engine.wishes.line
        return {
            **({"generation": asked} if asked else {}),
            "device": str(engine.backbone.device.type),
            "machine": platform.machine(),
            "batch_size": str(self.spec.batch_size or "auto"),
            "kernels": ": ".join(filter(None, (engine.kernels, engine.kernels_note)))[:500],
            "attention": str(engine.backbone.model.config._attn_implementation),
        }

    # ---- times and the board

    def _times(self, jobs: Sequence[Job]) -> list[Timing]:
        """Time all settings of each task side by side: those of a base backbone and of what is held against it."""
        jobs = [job for job in jobs if not job.place.task.is_loglikelihood]  # nothing is decoded there
        amount = sum(len(job.settings) * len(timing.BATCHES) for job in jobs)
        tasks = []
        for base in (job for job in jobs if job.base is None):
            together = [base, *(job for job in jobs if job.base is base)]
            tasks.append(
                {
                    "name": base.place.task.name,
                    "prompts": {job.engine.backbone.id: self._prompts(job) for job in together},
                    "settings": [
                        timing.describe(job.place, s, job.artifacts.get(s.key), self._forwards(job, s))
                        for job in together
                        for s in job.settings
                    ],
                }
            )
        with self.progress.bar("time", amount) as done, tempfile.TemporaryDirectory() as folder:
            done(0, "batch " + " and ".join(map(str, timing.BATCHES)))
            backbones = [job.engine.backbone for job in jobs]
            models = {b.id: (b.source, b.dtype) for b in backbones}
            found = self._timed(models, tasks, Path(folder), done)
        write_lines(self.store.out / "timing.jsonl", found)
        return found

    def _prompts(self, job: Job) -> list[dict[str, object]]:
        """Prompts of middling length, as many as the largest batch; where there are too few they come again."""
        size = max(timing.BATCHES)
        ordered = [p.request for batch in job.batches for p in batch]
        start = max(0, (len(ordered) - size) // 2)
        found = []
        for i in range(size):
            again, place = divmod(i, len(ordered))
            r = ordered[start + place]
            name = f"{r.id} again {again}" if again else r.id  # the noise is keyed by it
            found.append(
                {
                    "id": name,
                    "ids": r.ids,
                    "limit": r.limit,
                    "stop": r.stop,
                    "thinking": r.thinking and dataclasses.asdict(r.thinking),
                }
            )
        return found

    def _timed(
        self, models: Mapping[str, tuple[str, str]], tasks: Sequence[object], folder: Path, done: Callable[..., None]
    ) -> list[Timing]:
        """Run the timing process."""
        job_file, out = folder / "job.json", folder / "timing.jsonl"
        content = {
            "models": models,
            "device": self.device,
            "kernels": self.spec.kernels,
            "loading": self.spec.loading,
            "routed": self.spec.prompt == "routed",
            "sources": {name_of(m): m for m in self.spec.methods},
            "tasks": tasks,
            "out": str(out),
        }
        job_file.write_text(json.dumps(content))
        command = [sys.executable, "-m", "dlbench.evaluation.timing", str(job_file)]
        env = {
            k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_") and k not in process_group.LAUNCHED
        }
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as worker:
            assert worker.stdout is not None and worker.stderr is not None
            for line in worker.stdout:
                said = json.loads(line)
                done(said["done"])
                if "note" in said:
                    self.progress.note(said["note"])
            errors = worker.stderr.read()
        if worker.returncode:
            last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {worker.returncode}"
            raise DlbenchError(f"the timing run failed: {last}; --no-timing goes without it")
        return list(read_lines(out, Timing))

    def _forwards(self, job: Job, setting: Setting) -> float:
        """Mean decode forwards per document."""
        samples = self.store.samples(setting.key)
        return sum(len(samples[d.id].layers) for d in job.documents) / len(job.documents)


def _asked(jobs: Sequence[Job]) -> list[Asked]:
    """What the documents of all tracks asked, each once."""
    tracks = {job.place.track: job.documents for job in jobs}
    return [
        Asked(track=track, id=d.id, prompt=d.prompt, references=d.references, source=d.source)
        for track, documents in tracks.items()
        for d in documents
    ]


def _worker(path: Path, what: str) -> int:
    """A process of a run, or of the fits of one, that was started here."""
    content = json.loads(path.read_text())
    content["out"] = Path(content["out"])
    content["sources"] = Sources.from_json(content["sources"])
    for name in ("models", "tasks", "methods", "budgets"):
        content[name] = tuple(content[name])
    try:
        runner = Runner(RunSpec(**content))
        runner.fit() if what == "fit" else runner.run()
    except DlbenchError as error:
        return tell(path, error)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(_worker(Path(sys.argv[1]), sys.argv[2]))
