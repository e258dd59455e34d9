"""The bridge to lm-eval's tasks: which there are, and loading them.

lm-eval is imported when a task is loaded, not before: its import takes a second, its index of all tasks eight.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dlbench import catalogue
from dlbench.catalogue import TaskInfo
from dlbench.errors import DlbenchError
from dlbench.suggest import unknown
from dlbench.task import Document, Split, Task, cut

__all__ = ["Document", "Split", "Task", "TaskInfo", "cut", "expand_tasks", "list_tasks", "load_task"]


def list_tasks() -> list[TaskInfo]:
    """The tasks that come with dlbench; quick, without lm-eval."""
    return list(catalogue.tasks().values())


def expand_tasks(names: Sequence[str]) -> list[str]:
    """Replace suites by their tasks and drop repetitions; the order stays.

    Args:
        names: tasks and suites of dlbench, paths of task YAML files, tasks and groups of lm-eval.

    Raises:
        DlbenchError: there is no such task.
    """
    found: dict[str, None] = {}
    for name in names:
        if name in catalogue.suites():
            found.update(dict.fromkeys(catalogue.suites()[name]))
        elif name in catalogue.tasks():
            found[name] = None
        elif name.endswith(".yaml"):
            _task_file(name)
            found[name] = None
        else:
            found.update(dict.fromkeys(_lm_eval_tasks(name)))
    return list(found)


@functools.lru_cache(maxsize=64)
def load_task(name: str) -> Task:
    """Load a task of dlbench, of lm-eval, or of a YAML file.

    Raises:
        DlbenchError: there is no such task, its data cannot be had, or it is no generation task.
    """
    if name in catalogue.tasks():
        path: Path | None = catalogue.tasks()[name].path
    elif name.endswith(".yaml"):
        path = _task_file(name)
    else:
        path = None
        if _lm_eval_tasks(name) != [name]:
            raise DlbenchError(f"{name!r} is a group of tasks: name one of {', '.join(_lm_eval_tasks(name)[:5])}")
    with _quiet():
        try:
            loaded = _manager(defaults=path is None).load([name if path is None else str(path)])["tasks"]
        except DlbenchError:
            raise
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            place = f"task {name!r}" if path is None else f"task {name!r} ({path})"
            raise DlbenchError(f"{place} cannot be loaded: {text}") from error
    if len(loaded) != 1:
        raise DlbenchError(f"{name!r} is a group of {len(loaded)} tasks: name one of them")
    return Task(name, next(iter(loaded.values())))


def _task_file(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise DlbenchError(f"no task file {path}: give the path of an lm-eval task YAML, or a name")
    return path


def _lm_eval_tasks(name: str) -> list[str]:
    """The names of lm-eval's tasks behind a task, tag or group of lm-eval."""
    # Reading lm-eval's index takes seconds: not for a slip in one of our own names.
    ours = [*catalogue.tasks(), *catalogue.suites()]
    if any(name.startswith(suite) for suite in catalogue.suites()):
        raise unknown("task", name, ours, see="`dlbench list tasks`")
    with _quiet():
        manager = _manager(defaults=True)
    entry = manager.task_index.get(name)
    if entry is None:
        raise unknown("task", name, [*ours, *manager.all_tasks], see="`dlbench list tasks` and `lm-eval ls tasks`")
    if entry.yaml_path is not None and entry.kind.name in ("TASK", "PY_TASK"):
        return [name]
    members = sorted(entry.tags) if entry.kind.name == "TAG" else (entry.cfg or {}).get("task", [])
    found: list[str] = []
    for member in members:
        if not isinstance(member, str):
            raise DlbenchError(f"group {name!r} of lm-eval changes its tasks as it lists them: name tasks one by one")
        found.extend(_lm_eval_tasks(member))
    return found


@functools.cache
def _manager(defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=defaults)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's warnings about its own defaults, and progress bars over files, off the terminal."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.utils.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.utils.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.utils.enable_progress_bars()
