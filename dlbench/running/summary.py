"""End of a run: its summary in the terminal, and its submission."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from dlbench.records.run_folder import Store
from dlbench.records.schema import Record, Timing
from dlbench.running.config import RunSpec
from dlbench.running.job import Job
from dlbench.submission.packing import PackedJob, pack
from dlbench.terminal.console import open_console


def show_results(store: Store, records: Sequence[Record], times: Sequence[Timing], minutes: float) -> None:
    """Build the board and print the results: a table, headlines, warnings and where the board is.

    Args:
        store: the run's folder.
        records: of the run.
        times: empty where none were measured.
        minutes: duration of the run.
    """
    from dlbench.leaderboard.board import read_board
    from dlbench.leaderboard.data.tracks import cut_prompts
    from dlbench.leaderboard.site import build
    from dlbench.leaderboard.terminal.table import closing_table

    board = read_board([store.out])
    page = build(board, store.out / "site")
    console = open_console()
    console.print(closing_table(board.tracks, console.width))
    for line in dict.fromkeys([*cut_prompts(records), *_notes_on_full(records), *slow_kernels(records, times)]):
        console.print(f"! {line}", markup=False, highlight=False)
    headlines = Table.grid(padding=(0, 1, 0, 0))
    for line in board.headlines():
        headlines.add_row("•", Text(line))
    console.print(headlines, highlight=False)
    n = records[0].task.n if records else 0
    said = f"\n{len(records)} records of {n} documents each in {minutes:.1f} minutes; board: "
    console.print(said + escape(str(page)))
    console.print(f"Any two rows against each other: dlbench compare {store.out} A B", markup=False)


def slow_kernels(records: Sequence[Record], times: Sequence[Timing]) -> list[str]:
    """Return a line per model whose layers ran on slower kernels than were tried, and one if only the timed ones did.

    `env["kernels"]` of a record is the kind of kernels that ran and, after a colon, why no faster kind did.
    """
    told = {(r.backbone.name, r.backbone.dtype, *r.env.get("kernels", "").partition(": ")[::2]) for r in records}
    ran = {"stock": "the model's own layers ran, not fused ones", "fused": "fused layers ran, not captured ones"}
    lines = [
        f"{name} in {dtype}: {ran[kind]}, and times are slower for it: {reason}"
        for name, dtype, kind, reason in sorted(told)
        if reason and kind in ran
    ]
    quick = {r.key for r in records if r.env.get("kernels", "stock").partition(":")[0] != "stock"}
    if slow := {t.key for t in times if t.kernels == "stock"} & quick:
        lines.append(f"times of {len(slow)} rows were taken with the model's own layers, not with the fused ones")
    return lines


def _notes_on_full(records: Sequence[Record]) -> list[str]:
    """Notes on the records of full depth: they concern the task or the model, and so every row."""
    full = [record for record in records if record.method.name == "full"]
    return [f"{one.task.name} on {one.backbone.name}: {note}" for one in full for note in one.notes]


def show_fits(jobs: Sequence[Job]) -> None:
    """Print what was fitted, a row per setting."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("on", no_wrap=True)
    for name in ("budget", "realised", "learnt\nfrom", "tuned\non", "seed", "minutes", "fore-\ntold"):
        table.add_column(name, justify="right", no_wrap=True)
    lone = len({job.conditions.backbone.name for job in jobs if any(s.fit for s in job.settings)}) == 1
    for job in jobs:
        for s in job.settings:
            if (facts := s.fit) is not None:
                shares = [f"{x:.1%}" if x is not None else "–" for x in (facts.budget or s.budget, facts.realised)]
                counts = [str(n or "–") for n in (facts.learnt_from, facts.tuned_on)]
                variant = next((v for v in type(s.method).variants if v.items() <= s.method.params().items()), {})
                label = " · ".join(
                    [s.name, *(k if v is True else str(v) for k, v in variant.items() if v is not False)]
                )
                where = facts.task if lone else f"{facts.task}, {job.conditions.backbone.name}"
                minutes = [f"{x / 60:.1f}" if x is not None else "–" for x in (facts.seconds, facts.foretold)]
                table.add_row(Text(label), Text(where), *shares, *counts, str(facts.seed), *minutes)
    open_console().print(table)


def pack_run(spec: RunSpec, jobs: Sequence[Job], out: Path) -> Path:
    """Write the submission of a finished run, official or not, and return its folder.

    Args:
        spec: the run.
        jobs: of the run.
        out: the submission's folder; an earlier submission there is replaced.

    Raises:
        DlbenchError: the folder holds something else, or a method's source cannot be packed.
    """
    asked_for = {"fewshot": spec.sources.fewshot, "max_new_tokens": spec.sources.max_new_tokens}
    packed = [
        PackedJob(job.conditions, job.engine.costs, job.settings, job.artifacts, job.thinking, asked_for)
        for job in jobs
    ]
    options = dataclasses.asdict(spec)
    del options["out"]  # a folder of the author's machine
    return pack(spec.out, out, packed, official=spec.official, author=spec.author, options=options)
