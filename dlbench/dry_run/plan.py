"""The plan of a run: what it will do, and what that needs, by a probe of a minute or less."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from dlbench.dry_run.decoding import DecodingForecast, JobPlan
from dlbench.dry_run.few_documents import decode_few
from dlbench.dry_run.rows import PlannedFit, RowPlanner
from dlbench.forecast import needs
from dlbench.forecast.speed import Clock
from dlbench.models.catalog import resolve_device
from dlbench.models.loading import locate, plain_dtype, settled_dtype
from dlbench.records.run_folder import Store
from dlbench.running import budgets
from dlbench.running.config import RunSpec
from dlbench.running.job import Job
from dlbench.running.method_fitter import MethodFitter
from dlbench.running.planner import Planner
from dlbench.running.runner import processes_of
from dlbench.system.cpu import cores
from dlbench.system.device_memory import free_bytes
from dlbench.terminal.progress import Progress

BOARD_ROW = 0.08
"""Seconds of a processor that the board takes for a row; little beside decoding it."""
SITE_BYTES, SITE_SHARE = 1_500_000, 2.0
"""Bytes of an empty site, and bytes of its pages per byte of the samples that they show."""


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        cost: seconds of one process; on a CPU those of the processor.
        tokens, flops: that go through backbones.
        processes: that share it.
    """

    name: str
    cost: float
    tokens: float = 0.0
    flops: float = 0.0
    processes: int = 1


@dataclass(frozen=True)
class RunPlan:
    """What a run will do and need.

    Attributes:
        jobs: tasks on backbones.
        fits: that will be made.
        reused_fits: rows whose fits are there.
        failures: rows that the run would leave out, each with its reason.
        open_budgets: backbones whose budgets the run will choose, with the number that is planned for.
        stages: in the order of the run.
        memory: bytes at the highest, of all processes together; of a GPU, of one process.
        memory_free: bytes that are free, this process's own among them.
        disk: bytes that the run will write.
        disk_free: bytes that are free there.
        busy: processor time of this probe ÷ its time.
        probe_seconds: that this took.
    """

    device: str
    processes: int
    jobs: Sequence[JobPlan]
    fits: Sequence[PlannedFit]
    reused_fits: int
    failures: Sequence[str]
    open_budgets: dict[str, int]
    stages: Sequence[Stage]
    memory: int
    memory_free: int
    disk: int
    disk_free: int
    busy: float
    probe_seconds: float

    @property
    def seconds(self) -> float:
        """Time that the run takes, where the machine is as busy as it was for the probe."""
        return sum(map(self.stage_seconds, self.stages))

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the run, of all processes together."""
        return self.busy * sum(self.stage_seconds(stage) * stage.processes for stage in self.stages)

    def stage_seconds(self, stage: Stage) -> float:
        """Time that a stage takes."""
        return stage.cost / self.busy if self.device == "cpu" else stage.cost

    def to_json(self) -> dict[str, Any]:
        """Return it for programs."""
        facts = [fit.forecast for fit in self.fits]
        return {
            "device": self.device,
            "processes": self.processes,
            "jobs": [job.to_json() for job in self.jobs],
            "budgets_to_choose": self.open_budgets,
            "fits": [
                {
                    "fit": fit.label,
                    "tokens": fact and fact.tokens,
                    "flops": fact and fact.flops,
                    "seconds": fact and round(fact.seconds, 1),
                }
                for fit, fact in zip(self.fits, facts, strict=True)
            ],
            "reused_fits": self.reused_fits,
            "left_out": list(self.failures),
            "stages": [
                {
                    "stage": stage.name,
                    "seconds": round(self.stage_seconds(stage), 1),
                    "tokens": round(stage.tokens),
                    "flops": round(stage.flops),
                    "processes": stage.processes,
                }
                for stage in self.stages
            ],
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            "memory_bytes": self.memory,
            "memory_free_bytes": self.memory_free,
            "disk_bytes": self.disk,
            "disk_free_bytes": self.disk_free,
            "probe_seconds": round(self.probe_seconds, 1),
        }


def make_plan(spec: RunSpec) -> RunPlan:
    """Plan a run; nothing is written to its folder.

    Raises:
        DlbenchError: something cannot be done as asked, or does not fit the memory or the disk.
    """
    device, processes = resolve_device(spec.device), processes_of(spec, spec.limit)
    _check_weights(spec, device, processes)
    if processes > 1:
        torch.set_num_threads(max(1, cores() // processes))
    with Progress(True, spec.progress) as progress, tempfile.TemporaryDirectory(prefix="dlbench-dry-run-") as folder:
        planner = Planner(spec, device, progress, processes, lambda word: word)
        planner.fits.makes = False
        planner.fits.clock = clock = _clock(device)
        jobs = planner.load()
        loading = time.process_time() if device == "cpu" else time.time() - psutil.Process().create_time()
        start, used = time.perf_counter(), time.process_time()
        fitters = planner.fitters(jobs)
        open_budgets = _assume_budgets(spec, jobs, fitters)
        base = needs.held_bytes(jobs[0].engine.backbone.device)
        with progress.bar("probe", len(jobs)) as done:
            rows, plans = RowPlanner(), []
            for index, job in enumerate(jobs):
                done(0, f"{job.conditions.task.name} · {job.engine.backbone.name}")
                place = Path(folder) / str(index)
                few = decode_few(job, place, clock, routed=spec.prompt == "routed", auto=spec.batch_size is None)
                plans.append(JobPlan.of(job, rows.rows(job, fitters), Store(spec.out), few))
                done(1)
            decoding = DecodingForecast(plans, processes, clock, routed=spec.prompt == "routed")
            stages = _stages(spec, plans, rows, decoding, loading, processes, open_budgets)
        memory, free = _memory(plans, rows, base, processes, timing=spec.timing)
        needs.check_memory(memory, free, f"a run of {processes} processes" if processes > 1 else "the run")
        disk = _disk(plans, rows)
        seconds = time.perf_counter() - start
        return RunPlan(
            device=device,
            processes=processes,
            jobs=plans,
            fits=rows.fits,
            reused_fits=rows.reused,
            failures=rows.failures,
            open_budgets=open_budgets,
            stages=stages,
            memory=memory,
            memory_free=free,
            disk=disk,
            disk_free=needs.check_disk(disk, spec.out),
            busy=(time.process_time() - used) / seconds,
            probe_seconds=seconds,
        )


def _clock(device: str) -> Clock:
    """What costs are measured by: on a CPU its own time, since other programs may use the machine too."""
    return time.process_time if device == "cpu" else time.perf_counter


def _check_weights(spec: RunSpec, device: str, processes: int) -> None:
    """Refuse models whose weights alone do not fit, before they are loaded.

    Raises:
        DlbenchError: they do not.
    """
    if spec.device_map is not None:
        return  # it spreads them as they fit
    need = 0
    for name in spec.models:
        folder = locate(name, spec.sources.data_dir)
        if folder is not None and folder.is_dir():
            need += needs.weights_bytes(folder, plain_dtype(settled_dtype(spec.dtype, name, device), device))
    copies = processes if device == "cpu" else 1
    what = f"loading {', '.join(spec.models)}" + (f" in {copies} processes" if copies > 1 else "")
    needs.check_memory(copies * need, free_bytes(torch.device(device), 1), what)


def _assume_budgets(spec: RunSpec, jobs: Sequence[Job], fitters: Sequence[MethodFitter]) -> dict[str, int]:
    """Give jobs whose budgets the run will choose those of its last start, or evenly spread ones; say which are open.

    Returns:
        Name of the backbone → number of budgets.
    """
    asked = [job for job in jobs if job.oracles or any(f.takes_budgets and f.job is job for f in fitters)]
    earlier, open_ = budgets.chosen_before(spec.out), {}
    for job in budgets.to_choose(asked, spec):
        backbone = job.engine.backbone
        job.budgets = earlier.get(backbone.base_sha256, ())
        if not job.budgets:
            even = {layers: layers / backbone.depth for layers in range(1, backbone.depth + 1)}
            job.budgets = budgets.pick(even, backbone.depth)
            open_[backbone.name] = len(job.budgets)
    return open_


def _stages(
    spec: RunSpec,
    plans: Sequence[JobPlan],
    rows: RowPlanner,
    decoding: DecodingForecast,
    loading: float,
    processes: int,
    open_budgets: dict[str, int],
) -> list[Stage]:
    """What the run does, one after the other."""
    foretold = [fit.forecast for fit in rows.fits if fit.forecast is not None]
    shown = sum(row.shown for plan in plans for row in plan.rows)
    stages = [
        Stage("start", loading, processes=processes),
        *([Stage("budgets", decoding.choosing(set(open_budgets)), processes=processes)] if open_budgets else []),
        Stage(
            "fits",
            sum(one.seconds for one in foretold) / processes,
            sum(one.tokens for one in foretold),
            sum(one.flops for one in foretold),
            processes,
        ),
        Stage("tune", decoding.classes(), processes=processes),
        Stage("decode", decoding.seconds(), decoding.tokens(), decoding.flops(), processes),
    ]
    if spec.timing and (seconds := decoding.timing()):
        stages.append(Stage("times", loading + seconds))
    stages.append(Stage("board", BOARD_ROW * shown))
    return [stage for stage in stages if stage.cost]


def _memory(plans: Sequence[JobPlan], rows: RowPlanner, base: int, processes: int, *, timing: bool) -> tuple[int, int]:
    """Bytes that the run needs, and those that are free, with those of this process.

    Args:
        plans: of all jobs.
        rows: with the fits that are to be made.
        base: that this process held when all was loaded.
        processes: of the run.
        timing: whether a process of its own takes times.
    """
    device = plans[0].job.engine.backbone.device
    wave = max(plan.wave_bytes(processes) for plan in plans)
    trace = max((plan.trace_bytes() for plan in plans), default=0) if rows.fits else 0
    each = max(needs.highest_bytes(device), base + max(wave, trace))
    held = needs.held_bytes(device)
    if device.type != "cpu":
        return each, free_bytes(device, 1) + held
    return max(processes * each, each + base if timing else 0), free_bytes(device, 1) + held


def _disk(plans: Sequence[JobPlan], rows: RowPlanner) -> int:
    """Bytes that the run will write."""
    samples = sum(plan.sample_bytes(row) for plan in plans for row in plan.rows)
    site = SITE_BYTES + SITE_SHARE * sum(plan.shown_bytes(row) for plan in plans for row in plan.rows if row.shown)
    return round(samples + site + rows.fitted_bytes)
