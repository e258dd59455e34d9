"""Make local mirrors of tasks' data, for machines without a network.

    DIR/<name>/<split>.jsonl   what a task reads: documents for dlbench's tasks, the hub's rows for those of lm-eval
    DIR/dlbench.lock.json      by name: dataset, revision, and the sha256 and number of lines of every file

`datasets` loads the data from the hub, its cache, or a local folder laid out as on the hub. The task's own normaliser
is applied, so that a mirror and the hub give the same prompts.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlbench.data import loader, mirrors, resolve
from dlbench.data.task_options import Sources, is_file_task
from dlbench.errors import DlbenchError
from dlbench.system.files import write_pieces, write_text


@dataclass(frozen=True)
class Fetched:
    """A mirror that was written."""

    task: str
    folder: Path
    revision: str | None
    """The hub's commit; None where the data did not come from the hub."""
    counts: Mapping[str, int]
    """Lines by split."""


def fetch(names: Sequence[str], to: Path, sources: Sources, say: Callable[[Fetched], None]) -> list[Fetched]:
    """Mirror the data of tasks.

    Args:
        names: tasks and suites.
        to: folder of mirrors; mirrors of these tasks are overwritten, others are kept.
        sources: names folders with task YAML of the user's own.
        say: called with every mirror once it is complete.

    Raises:
        DlbenchError: a task has no dataset on the hub, its data cannot be had, or the folder cannot be written.
    """
    mirrored = []
    done: set[str] = set()
    for name in resolve.expand_tasks(names, sources):
        if name not in names and name in resolve.with_own_data(names):
            continue
        made = _mirror(name, to, sources, done)
        if made is not None:
            mirrored.append(made)
            say(made)
    return mirrored


def _mirror(name: str, to: Path, sources: Sources, done: set[str]) -> Fetched | None:
    """Mirror one task; None where another task of this call has the same data."""
    if is_file_task(name):
        raise DlbenchError(f"{name} is a local file: there is nothing to fetch")
    inner = loader.load_task(name, sources).inner
    config = inner.config
    if not config.dataset_path:
        raise DlbenchError(f"task {name!r} has no dataset on the hub: its data comes with it")
    folder = mirrors.names(config.task, config.dataset_path, config.dataset_name, config.metadata)[0]
    if folder in done:
        return None
    done.add(folder)
    splits: dict[str, dict[str, Any]] = {}
    for split in _splits(config):
        path = to / folder / f"{split}.jsonl"
        rows = _rows(inner, split)
        write_pieces(path, (_line(path, number, row) for number, row in enumerate(rows, start=1)))
        splits[split] = {"sha256": mirrors.sha256(path), "lines": len(rows)}
    revision = mirrors.hub_revision({split: inner.dataset[split] for split in splits})
    about = {"dataset": config.dataset_path, "config": config.dataset_name, "revision": revision}
    made = datetime.datetime.now(datetime.UTC).date().isoformat()
    lock = {**mirrors.read_lock(to), folder: {**about, "made": made, "splits": splits}}
    write_text(to / mirrors.LOCK, json.dumps({"mirrors": lock}, indent=1, sort_keys=True) + "\n")
    return Fetched(name, to / folder, revision, {split: entry["lines"] for split, entry in splits.items()})


def _splits(config: Any) -> list[str]:
    """The splits that a task reads, each once."""
    shots = config.fewshot_config.split if config.fewshot_config is not None else config.fewshot_split
    named = (config.training_split, config.validation_split, config.test_split, shots)
    return list(dict.fromkeys(str(split) for split in named if split))


def _rows(inner: Any, split: str) -> Any:
    """What the task reads of a split: documents where its normaliser makes them, else the hub's rows."""
    rows, config = inner.dataset[split], inner.config
    if config.process_docs is None or "mirror" not in (config.metadata or {}):
        return rows
    made = config.process_docs(rows)
    return made if {"input", "references"} <= set(made.features) else rows


def _line(path: Path, number: int, row: Mapping[str, Any]) -> str:
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise DlbenchError(f"{path}, line {number}: a row holds more than text and numbers: {error}") from error
