"""What the name of a task means: decided here and nowhere else, without importing lm-eval.

A name is one of these, and the first that fits counts: a file of documents of the user's own (`file:PATH.jsonl`), a
suite of dlbench, a task of dlbench, a task YAML given by its path, or a task, group or tag of lm-eval or of a folder
that is included.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dlbench.data import jsonl_task, lm_eval_index, mirrors, suites
from dlbench.data.suites import TaskInfo
from dlbench.data.task_options import Sources, is_file_task
from dlbench.errors import DlbenchError
from dlbench.terminal.suggest import unknown

DOCUMENTS = 32
"""Documents per task that a run takes where neither it nor a suite says how many."""
_PLAIN = Sources()


@dataclass(frozen=True)
class Resolved:
    """What a name means."""

    kind: Literal["file", "suite", "dlbench", "yaml", "lm-eval", "group"]
    """A task of lm-eval counts as `lm-eval` where dlbench's suites list it too, or an included folder holds it; a tag
    counts as a group."""
    tasks: tuple[str, ...]
    """Names of the tasks; of a single task its own."""
    path: Path | None = None
    """The YAML of a single task, or the file of documents; None where the name means several tasks."""


def resolve(name: str, sources: Sources = _PLAIN) -> Resolved:
    """Decide what a name means.

    Args:
        name: as people give it.
        sources: names the folders that are included.

    Raises:
        DlbenchError: there is no such task, file or folder; the message names what was probably meant.
    """
    if is_file_task(name):
        return Resolved("file", (name,), jsonl_task.place(name))
    if name in suites.suites():
        return Resolved("suite", suites.suites()[name])
    if name in suites.tasks() and (own := suites.tasks()[name].path) is not None:
        return Resolved("dlbench", (name,), own)
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser().resolve()
        if not path.is_file():
            raise DlbenchError(f"no task file {path}: give the path of an lm-eval task YAML, or a name")
        return Resolved("yaml", (name,), path)
    entries = _entries(sources)
    if name not in entries:
        raise _unknown(name, entries)
    entry = entries[name]
    if entry.path is not None and entry.kind in ("task", "python"):
        return Resolved("lm-eval", (name,), Path(entry.path))
    return Resolved("group", tuple(_members(name, entries)))


def brings_code(name: str, sources: Sources = _PLAIN) -> Path | None:
    """The YAML of a single task that runs code of its own; None where it has none, or comes with dlbench or lm-eval.

    Args:
        name: what `resolve` knows.
        sources: names the folders that are included.
    """
    path = resolve(name, sources).path
    if path is None or is_file_task(name) or any(map(path.is_relative_to, (suites.folder(), lm_eval_index.folder()))):
        return None
    config = suites.read(path)
    return path if "class" in config or _names_function(config) else None


def _names_function(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_names_function, value.values()))
    if isinstance(value, list):
        return any(map(_names_function, value))
    return isinstance(value, suites.FunctionName)


def expand_tasks(names: Sequence[str], sources: Sources = _PLAIN) -> list[str]:
    """Replace suites, groups and tags by their tasks and drop repetitions; the order stays.

    Args:
        names: what `resolve` knows.
        sources: names the folders that are included.

    Raises:
        DlbenchError: there is no such task, or two have one name.
    """
    tasks = list(dict.fromkeys(task for name in names for task in resolve(name, sources).tasks))
    given_as: dict[str, str] = {}
    for task in tasks:
        shown = jsonl_task.name(task) if is_file_task(task) else task
        if shown in given_as:
            raise DlbenchError(f"two tasks are called {shown}: {given_as[shown]} and {task}; rename a file")
        given_as[shown] = task
    return tasks


def without_data(names: Sequence[str], sources: Sources) -> list[str]:
    """Return the tasks that suites leave out since there is no mirror of their data; one named by itself is none.

    Args:
        names: tasks and suites, as people give them.
        sources: the folder of mirrors.
    """
    tasks = suites.tasks()
    asked = [name for suite in names if suite in suites.suites() for name in suites.suites()[suite]]
    needed = set().union(*(suites.needs_mirror(suite) for suite in names if suite in suites.suites()))
    return [
        name
        for name in dict.fromkeys(asked)
        if name in needed and name not in names and mirrors.find(sources.data_dir, [tasks[name].mirror]) is None
    ]


def with_own_data(names: Sequence[str]) -> frozenset[str]:
    """Return the tasks that bring their data along, of the suites among these that also hold tasks which do not."""
    partly = [name for name in names if name in suites.suites() and suites.needs_mirror(name)]
    return frozenset(task for name in partly for task in suites.suites()[name]) - frozenset(
        task for name in partly for task in suites.needs_mirror(name)
    )


def documents_per_task(names: Sequence[str]) -> int:
    """Return how many documents a run takes that is not told: the fewest that a suite among these asks for, else 32."""
    given = [suites.sample_of(name) for name in names if name in suites.suites()]
    return min((one for one in given if one is not None), default=DOCUMENTS)


def list_tasks(everything: bool = False) -> list[TaskInfo]:
    """The tasks that come with dlbench.

    Args:
        everything: lm-eval's tasks too.
    """
    ours = list(suites.tasks().values())
    if not everything:
        return ours
    known = {info.name for info in ours}
    return ours + [
        TaskInfo(name, "", entry.output_type, "", "", None)
        for name, entry in sorted(lm_eval_index.entries().items())
        if entry.kind in ("task", "python") and name not in known
    ]


def _entries(sources: Sources) -> Mapping[str, lm_eval_index.TaskEntry]:
    """lm-eval's names; those of the included folders come before them."""
    entries = dict(lm_eval_index.entries())
    for folder in sources.include:
        included = lm_eval_index.scan(Path(folder).expanduser().resolve(), strict=True)
        ours = {**suites.tasks(), **dict.fromkeys(suites.suites())}
        if clash := next((name for name in included if name in ours and included[name].kind != "tag"), None):
            raise DlbenchError(f"{included[clash].path} names a task {clash!r}, which dlbench has: rename it")
        entries.update(included)
    return entries


def _members(name: str, entries: Mapping[str, lm_eval_index.TaskEntry]) -> list[str]:
    """The names of the tasks in a group or tag, and in the groups that it lists."""
    if name not in entries:
        raise _unknown(name, entries)
    entry = entries[name]
    if entry.kind in ("task", "python"):
        return [name]
    members: list[str] = []
    for member in entry.members:
        if member is None:
            raise DlbenchError(f"group {name!r} of lm-eval changes its tasks as it lists them: name tasks one by one")
        members.extend(_members(member, entries))
    return members


def _unknown(name: str, entries: Mapping[str, lm_eval_index.TaskEntry]) -> DlbenchError:
    if name.endswith(".jsonl") or os.path.isfile(os.path.join(os.path.expanduser(name), "test.jsonl")):
        return DlbenchError(f"unknown task {name!r}: for a file of documents of your own, give file:{name}")
    return unknown("task", name, [*suites.tasks(), *suites.suites(), *entries], see="`dlbench list tasks --all`")
