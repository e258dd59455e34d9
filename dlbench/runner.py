"""Carry out a run: fit, decode, score, record, time, and build the board.

Also the entry of worker processes: `python -m dlbench.runner SPEC.json`, started by accelerate.
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
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from dlbench import __version__, ceiling, fit, plan, registry, timing
from dlbench.backbones import EMBEDDED, Backbone, load
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.harness import load_task
from dlbench.lines import write_lines
from dlbench.method import Method, Oracle
from dlbench.plan import Place, Setting
from dlbench.progress import Progress
from dlbench.quality import Prompted, QualityRun, tokenise, total, waves
from dlbench.records import Record, Timing
from dlbench.spec import RunSpec, resolve_device
from dlbench.store import Store
from dlbench.tally import Reference, build
from dlbench.task import Document, Task

WAIT = timedelta(hours=2)
"""Longest wait of one process for another, before it gives up with an error."""


@dataclasses.dataclass
class Job:
    """One task on one backbone, with everything that will run there."""

    place: Place
    engine: Engine
    documents: list[Document]
    batches: list[list[Prompted]]
    settings: list[Setting]
    oracles: dict[str, tuple[Oracle, list[Setting]]]
    artifacts: dict[str, Path]
    base: Job | None
    """The same task on the base backbone; None where this is it."""

    @property
    def everything(self) -> list[Setting]:
        """Every setting once, by content key."""
        candidates = [s for _, several in self.oracles.values() for s in several]
        return list({s.key: s for s in [*self.settings, *candidates]}.values())


def execute(spec: RunSpec) -> list[Record]:
    """Carry out a run.

    Raises:
        DlbenchError: something cannot be done as asked.
    """
    if spec.processes > 1 and "LOCAL_RANK" not in os.environ:
        _launch(spec)
        return []
    return Runner(spec).run()


def _launch(spec: RunSpec) -> None:
    """Start the processes of a run with accelerate and wait for them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(dataclasses.asdict(spec), default=str))
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(spec.processes)]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--cpu"] if resolve_device(spec.device) == "cpu" else ["--multi_gpu"]
        done = subprocess.run([*command, "-m", "dlbench.runner", str(path)], check=False)
    if done.returncode:
        raise DlbenchError(f"a process of the run failed (exit code {done.returncode}); its message stands above")


class Runner:
    """The state of one process of a run."""

    def __init__(self, spec: RunSpec) -> None:
        device = resolve_device(spec.device)
        self.state = PartialState(cpu=device == "cpu", timeout=WAIT)
        if self.state.num_processes > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.state.num_processes))
            device = str(self.state.device)
        self.spec, self.device = spec, device
        self.main = self.state.is_main_process
        self.store = Store(spec.out)
        self.progress = Progress(shown=self.main)
        self.started = time.time()

    def run(self) -> list[Record]:
        """Do everything; only the main process returns records."""
        engines = self._engines()
        if self.main:
            self.store.open({"dlbench": __version__, "spec": json.loads(json.dumps(dataclasses.asdict(self.spec), default=str))})
        self.state.wait_for_everyone()
        with self.progress:
            jobs = self._jobs(engines)
            self._decode(jobs)
            self.state.wait_for_everyone()
            if not self.main:
                return []
            records = [r for job in jobs for r in self._records(job)]
            write_lines(self.store.out / "records.jsonl", records)
            times = self._times(jobs) if self.spec.timing else []
        self._show(records, times)
        return records

    # ---- what will run

    def _engines(self) -> dict[str, Engine]:
        names = list(self.spec.models)
        for name in self.spec.models:
            # the smaller dense model of the same training: what every method must be held against
            names += [n for n, base in EMBEDDED.items() if base == name and n not in names]
        return {n: Engine(load(n, device=self.device, dtype=self.spec.dtype)) for n in names}

    def _jobs(self, engines: dict[str, Engine]) -> list[Job]:
        jobs: list[Job] = []
        for name in self.spec.tasks:
            task = load_task(name)
            documents = task.documents("test", self.spec.limit)
            sha256 = plan.documents_sha256(task.documents("test"))
            bases: dict[str, Job] = {}
            ordered = sorted(engines.values(), key=lambda e: e.backbone.sha256 != e.backbone.base_sha256)
            for engine in ordered:
                place = Place(engine.backbone, task, sha256, self.spec)
                base = bases.get(engine.backbone.base_sha256)
                batches = waves(tokenise(engine, documents), self.spec.batch_size)
                job = Job(place, engine, documents, batches, [], {}, {}, base)
                if base is None:
                    bases[engine.backbone.sha256] = job
                self._fill(job, only_full=engine.backbone.name not in self.spec.models)
                jobs.append(job)
        return jobs

    def _fill(self, job: Job, only_full: bool) -> None:
        """Decide the settings of a job, fitting what must be fitted."""
        full = registry.load("full")
        assert issubclass(full, Method)
        job.settings.append(job.place.with_key(Setting("full", full(), None)))
        for given in self.spec.methods if not only_full else ():
            name = registry.name_of(given)
            cls = registry.load(given)
            for params in plan.variants(cls, self.spec.settings.get(name, {})):
                try:
                    made = cls.from_params(params)
                    made.validate(job.engine.backbone.depth)
                    if isinstance(made, Oracle):
                        self._add_oracle(job, name, made)
                    elif name != "full":
                        self._add_method(job, name, made)
                except ValueError as error:
                    raise DlbenchError(f"method {name!r}: {error}") from error

    def _add_oracle(self, job: Job, name: str, oracle: Oracle) -> None:
        static = registry.load("static_skip")
        settings = plan.oracle_settings("static_skip", oracle, job.engine.backbone.depth, static)
        job.oracles[name] = oracle, [job.place.with_key(s) for s in settings]

    def _add_method(self, job: Job, name: str, method: Method) -> None:
        if self.spec.prompt == "routed" and method.scope == "token":
            return  # prompts are routed for static and per-sequence methods only
        depth = job.engine.backbone.depth
        chosen = self.spec.settings.get(name, {})
        pinned = method.knob is None or method.knob.name in chosen
        if pinned and not method.fitted:
            job.settings.append(job.place.with_key(Setting(name, method, None)))
            return
        for budget in (None,) if pinned else self.spec.budgets:
            closed = method.at(budget, depth) if budget is not None else None
            if closed is None:
                self._add_fitted(job, name, method, budget)
                continue
            closed.validate(depth)
            job.settings.append(job.place.with_key(Setting(name, closed, budget)))

    def _add_fitted(self, job: Job, name: str, method: Method, budget: float | None) -> None:
        place, cls = job.place, type(method)
        documents = place.task.documents("fit")
        key = place.fit_key(name, method, budget, plan.documents_sha256(documents))
        own = self.store.out / "fits"
        folder = None if self.spec.fit and not self._fresh(own / key) else fit.find_artifact(key, [own])
        if folder is None and self.main:
            fresh = cls.from_params(method.params())
            self._fit(job, name, fresh, budget, documents, own / key)
        self.state.wait_for_everyone()
        folder = folder or own / key
        fitted, facts = fit.load_artifact(folder, cls)
        setting = place.with_key(Setting(name, fitted, budget, facts=facts))
        job.artifacts[setting.key] = folder
        job.settings.append(setting)

    def _fresh(self, folder: Path) -> bool:
        """Whether an artifact was made by this very run: another budget or variant may share it."""
        made = folder / "fit.json"
        return made.is_file() and made.stat().st_mtime >= self.started

    def _fit(
        self, job: Job, name: str, method: Method, budget: float | None, documents: Sequence[Document], folder: Path
    ) -> None:
        backbone = job.engine.backbone
        learn, rest = fit.halves(documents)
        label = f"fit {name} on {job.place.task.name}" + (f" for {budget:g}" if budget is not None else "")
        with self.progress.stage(label) as say:
            facts: dict[str, Any] = {"budget": budget, "seed": self.spec.seed, "learnt_from": len(learn)}
            start = time.perf_counter()
            method.fit(fit.FitProbe(backbone, learn, self.spec.seed, budget, say))
            if budget is not None and method.knob is not None:
                facts["realised"] = fit.tune(job.engine, method, method.knob, budget, rest, self.spec.seed)
                facts["tuned_on"] = min(len(rest), fit.TUNE_DOCUMENTS)
            facts["seconds"] = round(time.perf_counter() - start, 1)
        fit.save_artifact(folder, method, {"method": name, "task": job.place.task.name, **facts})

    # ---- quality

    def _decode(self, jobs: Sequence[Job]) -> None:
        index, count = self.state.process_index, self.state.num_processes
        amount = sum(total(job.batches, job.everything, index, count) for job in jobs)
        with self.progress.bar("decode", amount) as done:
            for job in jobs:
                run = QualityRun(
                    job.engine, job.place.task, self.store, self.spec.seed, self.spec.prompt == "routed", index, count
                )
                done(0, f"{job.place.task.name} · {job.engine.backbone.name}")
                run.run(job.batches, job.everything, done)

    def _records(self, job: Job) -> list[Record]:
        order = [d.id for d in job.documents]
        for setting in job.everything:
            self.store.merge(setting.key, order)
        samples = {s.key: self.store.samples(s.key) for s in job.everything}
        anchor = job.base or job
        full = self.store.samples(anchor.settings[0].key)
        base = Reference(anchor.engine.backbone.depth, anchor.engine.costs, full)
        found = []
        for setting in job.settings:
            rows = [samples[setting.key][id_] for id_ in order]
            kind = "dense" if job.base is not None and setting.name == "full" else "method"
            found.append(build(job.place, setting, job.documents, rows, base, self._env(job), kind=kind))
        for oracle, settings in job.oracles.values():
            found += ceiling.rows(
                job.place, oracle, settings, self.spec.budgets, job.documents, samples, base, self.store, self._env(job)
            )
        return found

    def _env(self, job: Job) -> dict[str, str]:
        return {
            "device": str(job.engine.backbone.device.type),
            "machine": platform.machine(),
            "batch_size": str(self.spec.batch_size),
            "attention": str(job.engine.backbone.model.config._attn_implementation),
        }

    # ---- times and the board

    def _times(self, jobs: Sequence[Job]) -> list[Timing]:
        by_model: dict[str, list[Job]] = {}
        for job in jobs:
            by_model.setdefault(job.engine.backbone.name, []).append(job)
        amount = sum(len(job.settings) * len(timing.BATCHES) for job in jobs)
        found: list[Timing] = []
        with self.progress.bar("time", amount) as done, tempfile.TemporaryDirectory() as folder:
            for name, several in by_model.items():
                done(0, name)
                found += self._timed(name, several, Path(folder), done)
        write_lines(self.store.out / "timing.jsonl", found)
        return found

    def _timed(self, model: str, jobs: Sequence[Job], folder: Path, done: Callable[..., None]) -> list[Timing]:
        from dlbench.lines import read_lines

        job_file, out = folder / "job.json", folder / "timing.jsonl"
        tasks = []
        for job in jobs:
            prompts = [p.request for p in job.batches[len(job.batches) // 2]][: max(timing.BATCHES)]
            tasks.append(
                {
                    "name": job.place.task.name,
                    "prompts": [{"id": r.id, "ids": r.ids, "limit": r.limit, "stop": r.stop} for r in prompts],
                    "settings": [timing.describe(s, job.artifacts.get(s.key)) for s in job.settings],
                }
            )
        content = {
            "model": model,
            "device": self.device,
            "dtype": self.spec.dtype,
            "seed": self.spec.seed,
            "routed": self.spec.prompt == "routed",
            "sources": {registry.name_of(m): m for m in self.spec.methods},
            "tasks": tasks,
            "out": str(out),
        }
        job_file.write_text(json.dumps(content))
        command = [sys.executable, "-m", "dlbench.timing", str(job_file)]
        env = {k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "LOCAL_RANK", "RANK", "WORLD"))}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as worker:
            assert worker.stdout is not None and worker.stderr is not None
            for line in worker.stdout:
                done(json.loads(line)["done"])
            errors = worker.stderr.read()
        if worker.returncode:
            last = errors.strip().splitlines()[-1] if errors.strip() else f"exit code {worker.returncode}"
            raise DlbenchError(f"the timing run of {model!r} failed: {last}; --no-timing goes without it")
        return list(read_lines(out, Timing))

    def _show(self, records: Sequence[Record], times: Sequence[Timing]) -> None:
        from rich.console import Console

        from dlbench.leaderboard.claims import claims
        from dlbench.leaderboard.site import build as build_site
        from dlbench.leaderboard.text import closing_table

        page = build_site([self.store.out], self.store.out / "site")
        console = Console()
        console.print(closing_table(records, times))
        scores = {r.key: {i: s.score for i, s in self.store.samples(r.key).items()} for r in records}
        for claim in claims(records, scores):
            console.print(f"• {claim.sentence}", markup=False, highlight=False)
        minutes = (time.time() - self.started) / 60
        n = records[0].task.n if records else 0
        console.print(f"\n{len(records)} records of {n} documents each in {minutes:.1f} minutes; board: {page}")


def _worker(path: Path) -> int:
    """A process of a run that `_launch` started."""
    content = json.loads(path.read_text())
    content["out"] = Path(content["out"])
    for name in ("models", "tasks", "methods", "budgets"):
        content[name] = tuple(content[name])
    try:
        Runner(RunSpec(**content)).run()
    except DlbenchError as error:
        print(f"dlbench: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(_worker(Path(sys.argv[1])))
