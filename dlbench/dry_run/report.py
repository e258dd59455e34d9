"""The plan of a run in plain lines."""

from __future__ import annotations

from collections.abc import Iterator

from dlbench.dry_run.plan import RunPlan
from dlbench.forecast.fits import duration
from dlbench.forecast.needs import size


def lines(plan: RunPlan) -> Iterator[str]:
    """Yield the lines of a plan."""
    for job in plan.jobs:
        facts = job.to_json()
        low, high = facts["prompt_tokens"]
        reused = f", {facts['reused_samples']:,} of them there" if facts["reused_samples"] else ""
        budgets = f" at budgets {' '.join(f'{one:g}' for one in facts['budgets'])}" if facts["budgets"] else ""
        yield (
            f"{facts['task']} on {facts['model']} ({facts['layers']} layers, {facts['parameters'] / 1e6:,.1f} M "
            f"parameters, {facts['dtype']} on {plan.device}): {facts['documents']:,} of {facts['of']:,} documents, "
            f"{low:,} to {high:,} prompt tokens, {facts['rows']:,} rows{budgets}, {facts['settings']:,} settings, "
            f"{facts['samples']:,} samples{reused}"
        )
    for backbone, count in plan.open_budgets.items():
        yield f"budgets of {backbone}: chosen by the run, and planned here as {count} evenly spread ones"
    if plan.fits or plan.reused_fits:
        yield f"fits: {len(plan.fits):,} to make; {plan.reused_fits:,} rows have theirs"
    for fit in plan.fits:
        yield f"  {fit.label}: {fit.forecast or 'what it costs cannot be foretold'}"
    for failure in plan.failures:
        yield f"left out: {failure}"
    for stage in plan.stages:
        through = f", {stage.tokens:,.0f} tokens, {stage.flops / 1e12:,.2f} TFLOPs" if stage.tokens else ""
        shared = f" in {stage.processes} processes" if stage.processes > 1 else ""
        yield f"{stage.name}: about {duration(plan.stage_seconds(stage))}{shared}{through}"
    yield f"memory: {size(plan.memory)} of {size(plan.memory_free)} free"
    yield f"disk: {size(plan.disk)} of {size(plan.disk_free)} free"
    yield (
        f"time: about {duration(plan.seconds)}, {duration(plan.cpu_seconds)} of processor time "
        f"(by a probe of {duration(plan.probe_seconds)}, while the machine did what else it does)"
    )
