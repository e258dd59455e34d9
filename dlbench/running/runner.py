"""Carry out a run: fit, decode, score, record, time, and build the board.

Also the entry point of worker processes: `python -m dlbench.running.runner SPEC.json run|fit`, started by
`dlbench.system.processes`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from uuid import uuid4

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from dlbench import __version__
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError, MethodError
from dlbench.evaluation.aggregate import Evaluation
from dlbench.evaluation.generation import QualityRun, total
from dlbench.evaluation.oracle import OracleRows
from dlbench.evaluation.record import Kind, build
from dlbench.evaluation.rescoring import rescore
from dlbench.models.catalog import resolve_device
from dlbench.models.loading import locate
from dlbench.records.jsonl import read_lines, write_lines
from dlbench.records.run_folder import Store
from dlbench.records.schema import Record, Timing
from dlbench.registry.plugin_code import guilty
from dlbench.running import budgets
from dlbench.running.class_members import TuneScores, score_members
from dlbench.running.config import RunSpec
from dlbench.running.failures import Failures
from dlbench.running.job import Job, asked
from dlbench.running.method_audit import audit_methods
from dlbench.running.method_fitter import MethodFitter
from dlbench.running.notices import limit_line
from dlbench.running.planner import Planner, check_any_fit, check_may_fit
from dlbench.running.summary import pack_run, show_fits, show_results
from dlbench.running.timing_process import measure_times
from dlbench.running.tune_part import TuneParts
from dlbench.running.workers import run_in_workers
from dlbench.system import lifeline, process_group, stopping
from dlbench.system.cpu import cores
from dlbench.system.files import SCRATCH
from dlbench.system.processes import WAIT, Turns, ended_by, own_threads, suitable
from dlbench.system.versions import facts
from dlbench.terminal.progress import Progress
from dlbench.tracking.rows import rows_of
from dlbench.tracking.tracker import TrackedRun
from dlbench.tracking.trackers import Trackers


def execute(spec: RunSpec) -> list[Record]:
    """Carry out a run.

    Raises:
        DlbenchError: something cannot be done as asked.
    """
    if spec.official and process_group.rank() == 0:
        audit_methods(spec)
    if (processes := processes_of(spec, spec.limit)) > 1:
        run_in_workers(spec, processes, "run")
        return list(read_lines(spec.out / "records.jsonl", Record))
    return Runner(spec).run()


def fit_only(spec: RunSpec) -> None:
    """Carry out the fits of a run, and show them.

    Raises:
        DlbenchError: something cannot be done as asked.
    """
    check_may_fit(spec)
    if (processes := processes_of(spec, None)) > 1:
        run_in_workers(spec, processes, "fit")
    else:
        Runner(spec).fit()


def processes_of(spec: RunSpec, documents: int | None) -> int:
    """Return the number of processes to start; 1 where this process is one of several already.

    Args:
        spec: the run.
        documents: number per task that is decoded; None for all.
    """
    if process_group.launched():
        return 1
    if spec.processes is not None:
        return spec.processes
    places = [locate(m, spec.sources.data_dir) or Path(m) for m in spec.models]
    # Processes communicate through sockets, and an offline run opens none unless several processes are asked for.
    alone = spec.offline or spec.device_map
    return 1 if alone else suitable(places, resolve_device(spec.device), documents)


class Runner:
    """The state of one process of a run."""

    def __init__(self, spec: RunSpec) -> None:
        device = resolve_device(spec.device)
        lifeline.end_with_launcher()
        with own_threads():
            self.state = PartialState(cpu=device == "cpu", timeout=WAIT)
        if self.state.num_processes > 1:
            torch.set_num_threads(max(1, cores() // process_group.local_size()))
            device = str(self.state.device)
        self.spec, self.device = spec, device
        lifeline.works_on(device)
        self.main = self.state.is_main_process
        self.store = Store(spec.out)
        self.progress = Progress(self.main, spec.progress, self.state.process_index)
        self.started = time.monotonic()  # the clock may be set back
        self.failures = Failures(self._note)
        self.trackers = Trackers(spec.track if self.main else (), self._note)
        self.progress.listener = self.trackers.advance

    def run(self) -> list[Record]:
        """Carry out the run; only the main process returns records.

        Raises:
            DlbenchError: something cannot be done as asked.
            MethodError: every method failed.
            RowsLeftOutError: some did, and have no row; all else is done and written.
            Stopped: the time limit is over; what was decoded is kept.
        """
        if (line := limit_line(self.spec)) is not None:
            self.progress.note(line)
        planner = self._planner()
        jobs = planner.load()
        with contextlib.closing(self.store):
            try:
                records = self._run(planner, jobs)
            except BaseException as error:
                self.progress.log.event("ended", by=type(error).__name__, text=str(error)[:1000])
                self.trackers.end(ok=False)
                raise
            self.progress.log.event("finished", seconds=round(time.monotonic() - self.started, 1))
            return records

    def _run(self, planner: Planner, jobs: list[Job]) -> list[Record]:
        self._open()
        self._track()
        with self.progress:
            parts = self._tune_parts()
            fitters = planner.fitters(jobs)
            self._choose_budgets(jobs, fitters, parts)
            planner.fit(fitters)
            self.failures.fitted(jobs, planner.failures)
            tune = score_members(jobs, parts)
            # a name that no killed run has left; the next run would remove the folder
            turns = Turns(self.store.out / f".{self._meet(uuid4().hex)}{SCRATCH}")
            in_time = all(gather_object([self._decode(jobs, turns)]))  # waits for the other processes
            if self.main:
                shutil.rmtree(turns.folder, ignore_errors=True)
            if not in_time:
                raise stopping.Stopped(stopping.OVER)
            self.failures.drop(jobs)
            if not self.main:
                return []
            records = [r for job in jobs for r in self._records(job, tune)]
            write_lines(self.store.out / "records.jsonl", records)
            write_lines(self.store.out / "documents.jsonl", asked(jobs))
            wanted = self.spec.timing and any(not job.conditions.task.is_loglikelihood for job in jobs)
            times: list[Timing] = []
            if wanted:
                times, otherwise = measure_times(jobs, self.spec, self.device, self.store, self.progress)
                if otherwise:
                    records = [r for r in records if r.key not in otherwise]
                    write_lines(self.store.out / "records.jsonl", records)
                    self.failures.timed(jobs, otherwise)
            planner.fits.refitted.forget()
        show_results(self.store, records, times, (time.monotonic() - self.started) / 60)
        if self.spec.track:
            self.trackers.rows(rows_of(records, times))
            self.trackers.end(ok=True)
        self.failures.end()
        if self.spec.official:
            place = pack_run(self.spec, jobs, self.store.out / "submission")
            print(f"submission: {place}; next: dlbench validate {place}")
        return records

    def _planner(self) -> Planner:
        return Planner(self.spec, self.device, self.progress, self.state.num_processes, self._meet)

    def _meet(self, word: str) -> str:
        """Wait for all processes, and return the argument of the main one."""
        words = [word]
        broadcast_object_list(words)
        self.state.wait_for_everyone()
        return words[0]

    def _open(self, **more: object) -> None:
        """Make the run's folder, and write run.json; all processes wait until it exists.

        Args:
            **more: what run.json says beside version and options.
        """
        if self.main:
            spec = self.spec.to_json()
            self.store.open({"dlbench": __version__, "spec": spec, **more})
            self.progress.log.event("run", **facts(self.device), processes=self.state.num_processes, spec=spec, **more)
        self.state.wait_for_everyone()
        self.progress.log.open(self.store.out)

    def _track(self) -> None:
        """Open the run in the trackers that were asked for."""
        if not (self.spec.track and self.main):
            return
        config = {"dlbench": __version__, **self.spec.to_json(), "machine": facts(self.device)}
        out = self.store.out
        self.trackers.begin(TrackedRun(out.resolve().name, out, config, self.spec.offline))

    def _tune_parts(self) -> TuneParts:
        store = Store(self.spec.out / "tune")
        index, count = self.state.process_index, self.state.num_processes
        return TuneParts(store, self._quality_run, self.progress, self._meet, index, count)

    def _choose_budgets(self, jobs: Sequence[Job], fitters: Sequence[MethodFitter], parts: TuneParts) -> None:
        """Choose the budgets of models that bring none, say which, and write them to run.json."""
        asked = [job for job in jobs if job.oracles or any(f.takes_budgets and f.job is job for f in fitters)]
        if not (open_ := budgets.to_choose(asked, self.spec)):
            return
        started = time.monotonic()
        choices = budgets.choose(open_, parts)
        for choice in choices:
            self.progress.note(f"{choice.line} ({time.monotonic() - started:.0f} s)")
        self._open(budgets=[choice.to_json() for choice in choices])

    def fit(self) -> None:
        """Make the fits of a run, without running it.

        Raises:
            DlbenchError: there is nothing to fit, or something cannot be done as asked.
        """
        planner = self._planner()
        jobs = planner.load()
        fitters = planner.fitters(jobs)
        check_any_fit(self.spec, fitters)
        with contextlib.closing(self.store):
            self._open()
            with self.progress:
                self._choose_budgets(jobs, fitters, self._tune_parts())
                planner.fit(fitters)
                self._meet("")  # the others have found what was made
                if self.main:
                    planner.fits.refitted.forget()
        if self.main:
            show_fits(jobs)
        if planner.failures:
            raise MethodError("; ".join(planner.failures))

    def _decode(self, jobs: Sequence[Job], turns: Turns) -> bool:
        """Decode batches that no other process takes; False where the time limit was over before all were decoded."""
        amount, first = sum(total(job.batches, job.all_settings, 0, 1) for job in jobs), 0
        with self.progress.bar("decode", amount) as done:
            for job in jobs:
                done(0, f"{job.conditions.task.name} · {job.engine.backbone.name}")
                for setting in job.all_settings if self.main else ():
                    if fault := self.store.damaged(setting.key):
                        self._note(f"{fault}: decoded again; the file is kept as it was, with .damaged at its end")
                run = self._quality_run(job, self.store)
                if self.state.num_processes > 1:
                    run.take, run.processes = partial(_take, turns, first), process_group.local_size()
                first += len(job.batches)
                in_time = run.run(job.batches, job.all_settings, done)
                self.failures.decoded(run.failed)
                if not in_time:
                    return False
        return True

    def _quality_run(self, job: Job, store: Store) -> QualityRun:
        return QualityRun(
            job.engine,
            job.conditions.task,
            store,
            self.spec.prompt == "routed",
            job.conditions.kv,
            self.state.process_index,
            self.state.num_processes,
            job.slots,
            auto=self.spec.batch_size is None,
            note=self._note,
            log=self.progress.log.event,
            go_on=lambda: not stopping.is_over(self.spec.time_limit),
        )

    def _note(self, line: str) -> None:
        """Print a line for people, in any process."""
        self.progress.note(line)
        if not self.main:
            print(f"process {self.state.process_index}: {line}", file=sys.stderr, flush=True)

    def _records(self, job: Job, tune: TuneScores) -> list[Record]:
        """Merge what the processes decoded, and build the job's records."""
        order = [d.id for d in job.documents]
        for setting in job.all_settings:
            self.store.merge(setting.key, order, expected=True)
        self._rescore(job)
        anchor = job.base or job
        evaluation = Evaluation(
            job.conditions, job.documents, anchor.reference(self.store), job.env(self.spec.batch_size)
        )
        notes = []
        if job.conditions.generation != anchor.conditions.generation:
            notes.append("its generation_config asks for something else than its base's: another track than the base")
        records = []
        for setting in job.settings:
            samples = self.store.samples(setting.key)
            rows = [samples[id_] for id_ in order]
            smaller = job.engine.backbone.depth < evaluation.base.depth
            kind: Kind = "dense" if smaller and setting.name == "full" else "method"
            record = build(evaluation, setting, rows, kind=kind, notes=notes)
            records.append(record.model_copy(update={"tune": tune.get((id(job), setting.key))}))
        for given, (oracle, settings) in job.oracles.items():
            records += OracleRows(evaluation, given, oracle, settings, self.store.samples, self.store).run(job.budgets)
        return records

    def _rescore(self, job: Job) -> None:
        """Score samples of earlier runs again."""
        task, keys = job.conditions.task, [s.key for s in job.all_settings]
        where = f"{task.name} on {job.engine.backbone.name}"
        if not any(map(self.store.from_earlier_run, keys)):
            return
        with self.progress.stage(f"earlier samples of {where}", "score") as say:
            changed = rescore(task, job.documents, self.store, keys, say)
        if changed:
            self._note(f"{where}: {changed:,} samples of earlier runs are scored anew: the task's scoring has changed")


def _take(turns: Turns, first: int, index: int) -> bool:
    """Take a batch of a job whose first batch has the number `first` in the run."""
    return turns.take(first + index)


def _worker(path: Path, what: str) -> int:
    """Entry point of a worker process of a run, or of its fits."""
    content = json.loads(path.read_text())
    content["out"] = Path(content["out"])
    content["sources"] = Sources.from_json(content["sources"])
    for name in ("models", "tasks", "methods", "budgets", "track"):
        if isinstance(content[name], list):
            content[name] = tuple(content[name])
    try:
        with stopping.by_signals():
            try:
                runner = Runner(RunSpec(**content))
                runner.fit() if what == "fit" else runner.run()
            except (Exception, SystemExit) as error:
                return ended_by(path, error if isinstance(error, DlbenchError) else guilty(error) or error)
            except BaseException as error:
                return ended_by(path, error)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(_worker(Path(sys.argv[1]), sys.argv[2]))
