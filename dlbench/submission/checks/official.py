"""Checks of the official protocol, see `dlbench.submission.protocol`."""

from __future__ import annotations

from collections import defaultdict

from dlbench.records.schema import Record
from dlbench.submission.checks.rows import row_name
from dlbench.submission.contents import Submission
from dlbench.submission.protocol import BATCHES, BUDGETS, CONTROLS, FIT_SEEDS, SEED, missing_tasks


def check_protocol(submission: Submission) -> None:
    """Check that the submission followed the official protocol."""
    add, records = submission.faults.add, submission.records
    if not submission.manifest.official:
        add("not-official", "submission.json", "the run was not an official one")
    for name, facts in submission.manifest.tracks.items():
        if facts.fewshot is not None or facts.max_new_tokens is not None:
            add("not-official", name, "the run changed the task's number of examples or of new tokens")
    if missing := missing_tasks({record.task.name for record in records}):
        add("suite-incomplete", "records.jsonl", f"a whole suite would need {', '.join(missing)}")
    timed = {(t.key, t.batch_size) for t in submission.timings}
    for record in records:
        where = row_name(record)
        if record.task.drawn != "all":
            add("limited", where, f"{record.task.n} of {record.task.of} documents")
        if record.task.truncated:
            add("cut-prompts", where, f"{record.task.truncated} of {record.task.n}")
        if record.hardware is None:
            add("hardware-missing", where, "the record names no machine")
        untimed = [batch for batch in BATCHES if (record.key, batch) not in timed]
        if untimed and record.run.max_new_tokens:
            add("timing-missing", where, f"no time at batch {' and '.join(map(str, untimed))}")
        if record.run.seed not in range(SEED, SEED + FIT_SEEDS):
            add("seed", where, f"seed {record.run.seed}")
    if any(timing.hardware is None for timing in submission.timings):
        add("hardware-missing", "timing.jsonl", "a time names no machine")
    _check_together(submission, records)


def _check_together(submission: Submission, records: list[Record]) -> None:
    """What rows of one track need beside them: controls, and repeated fits."""
    by_track: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_track[record.track].append(record)
    for track, rows in by_track.items():
        methods = {r.method.name for r in rows}
        for control in CONTROLS:
            if control not in methods:
                submission.faults.add("control-missing", track, f"no row of {control}")
        budgets: dict[str, set[float]] = defaultdict(set)
        for record in rows:
            if record.run.budget is not None:
                budgets[record.method.name].add(record.run.budget)
        wanted: set[float] = set().union(*(budgets[control] for control in CONTROLS))
        if len(wanted) < BUDGETS:
            submission.faults.add("budget-missing", track, f"the controls have {len(wanted)} budgets")
        for method, at in budgets.items():
            if lacking := wanted - at:
                submission.faults.add("budget-missing", track, f"{method} has no row at {min(lacking):g}")
        seeds: dict[str, set[int]] = defaultdict(set)
        for record in rows:
            if record.fit is not None and record.fit.learnt_from:
                seeds[record.method.name].add(record.fit.seed)
        for method, of in seeds.items():
            if len(of) < FIT_SEEDS:
                submission.faults.add("seeds-missing", track, f"{method} was fitted with {len(of)} seeds")
