"""The commands that make rows again, as far as records hold what was asked."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dlbench.leaderboard.data.entries import BoardEntry
from dlbench.records.schema import Record


def commands(entries: Iterable[BoardEntry], method: str, *more: str) -> list[str]:
    """Return the commands that make these rows again, each as one line for a shell.

    Rows of different models, or on different numbers of documents, take a run each. What a record does not hold, such
    as `--set`, is not in the line.

    Args:
        entries: whose rows.
        method: name or file to write after `--method`; the oracle stands for those that come with it.
        *more: words at the end of each line.
    """
    runs: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in (row.record for entry in entries for same in entry.rows for row in same):
        runs[record.backbone.name, record.backbone.dtype, record.run.prompt, _limit(record)].append(record)
    name = "oracle" if method.startswith("oracle") else method
    return [_line(rows, name, more) for rows in runs.values()]


def _line(rows: Sequence[Record], method: str, more: Sequence[str]) -> str:
    first, seeds = rows[0], sorted({record.run.seed for record in rows})
    policies = _each(record.run.kv for record in rows)
    words = ["dlbench", "run", "--model", first.backbone.name]
    for option, values in (
        ("--task", _each(record.task.name for record in rows)),
        ("--method", [method]),
        ("--budget", _each(f"{record.run.budget:g}" for record in rows if record.run.budget is not None)),
        ("--limit", [_limit(first)]),
        ("--seed", [str(seeds[0])] if seeds[0] else []),
        ("--fit-seeds", [str(len(seeds))] if len(seeds) > 1 else []),
        ("--dtype", [first.backbone.dtype] if first.backbone.dtype != "float32" else []),
        ("--prompt", ["routed"] if first.run.prompt == "routed" else []),
        ("--kv", policies if len(policies) == 1 and policies != ["project"] else []),
    ):
        for value in values:
            words += [option, value]
    return " ".join(shlex.quote(word) for word in (*words, *more))


def _limit(record: Record) -> str:
    """Return `--limit`; a record that does not say which documents were drawn took the first ones, or all."""
    task = record.task
    return {"all": "all", "sample": str(task.n)}.get(task.drawn or "", f"first:{task.n}")


def _each(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
