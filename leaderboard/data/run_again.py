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
    seeds: dict[tuple[str, ...], int] = {}
    for entry in entries:
        for same in entry.rows:
            for row in same:
                of = row.record
                run = (of.backbone.name, of.backbone.dtype, of.run.prompt, _limit(of))
                runs[run].append(of)
                seeds[run] = max(seeds.get(run, 1), entry.repeats)
    name = "oracle" if method.startswith("oracle") else method
    return [_line(rows, name, limit, seeds[run], more) for run, rows in runs.items() for limit in run[-1:]]


def _line(rows: Sequence[Record], method: str, limit: str, fit_seeds: int, more: Sequence[str]) -> str:
    first = rows[0]
    seed = min(record.run.seed for record in rows)
    policies = _each(record.run.kv for record in rows)
    words = ["dlbench", "run", "--model", first.backbone.name]
    for option, values in (
        ("--task", _each(record.task.name for record in rows)),
        ("--method", [method]),
        ("--budget", _each(f"{record.run.budget:g}" for record in rows if record.run.budget is not None)),
        ("--limit", [limit]),
        ("--seed", [str(seed)] if seed else []),
        ("--fit-seeds", [str(fit_seeds)] if fit_seeds > 1 else []),
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
