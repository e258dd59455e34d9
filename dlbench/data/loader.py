"""The bridge to lm-eval's tasks: which there are, and loading them.

lm-eval is imported when a task is loaded, not before: its import takes a second. Names are looked up in an index of our
own (`dlbench.data.lm_eval_index`), and a task is loaded from its file.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dlbench.data import jsonl_task, lm_eval_index, mirrors, suites
from dlbench.data.suites import TaskInfo
from dlbench.data.task import Document, Split, Task, cut
from dlbench.data.task_options import Sources, is_file
from dlbench.errors import DlbenchError
from dlbench.system.seeding import same_draws
from dlbench.terminal.quiet import quiet_data_libraries
from dlbench.terminal.suggest import unknown

__all__ = ["Document", "Split", "Task", "TaskInfo", "cut", "expand_tasks", "list_tasks", "load_task"]

_PLAIN = Sources()
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens")


def list_tasks(everything: bool = False) -> list[TaskInfo]:
    """The tasks that come with dlbench; quick, without lm-eval.

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


def expand_tasks(names: Sequence[str], sources: Sources = _PLAIN) -> list[str]:
    """Replace suites by their tasks and drop repetitions; the order stays.

    Args:
        names: tasks and suites of dlbench, paths of task YAML files, files of documents (`file:PATH.jsonl`), tasks,
            groups and tags of lm-eval and of the folders that are included.
        sources: names the folders.

    Raises:
        DlbenchError: there is no such task, or two have one name.
    """
    found: dict[str, None] = {}
    for name in names:
        if is_file(name):
            jsonl_task.place(name)
            found[name] = None
        elif name in suites.suites():
            found.update(dict.fromkeys(suites.suites()[name]))
        elif name in suites.tasks():
            found[name] = None
        elif name.endswith((".yaml", ".yml")):
            _task_file(name)
            found[name] = None
        else:
            found.update(dict.fromkeys(_members(name, sources)))
    called: dict[str, str] = {}
    for name in found:
        shown = jsonl_task.name(name) if is_file(name) else name
        if shown in called:
            raise DlbenchError(f"two tasks are called {shown}: {called[shown]} and {name}; rename a file")
        called[shown] = name
    return list(found)


@functools.lru_cache(maxsize=64)
def load_task(name: str, sources: Sources = _PLAIN) -> Task:
    """Load a task of dlbench, of lm-eval, of a YAML file, or of a file of documents.

    Args:
        name: as `expand_tasks` gives it.
        sources: where data comes from, and what is changed of the task.

    Raises:
        DlbenchError: there is no such task, its data cannot be had, or it is of a kind that dlbench does not run.
    """
    if is_file(name):
        return Task(name, _build(name, None, jsonl_task.config(name, sources), sources), sources)
    path = _path(name, sources)
    suites.read(path)  # says what is wrong with a YAML more plainly than lm-eval
    with quiet_data_libraries(), _told(name, path, None):
        from lm_eval.tasks._yaml_loader import load_yaml

        config = dict(load_yaml(path))
    return Task(name, _build(name, path, config, sources), sources)


def _build(name: str, path: Path | None, config: dict[str, Any], sources: Sources) -> Any:
    """lm-eval's task of a configuration, with what the sources change of it."""
    if "group" in config:
        raise DlbenchError(f"{name!r} is a group of tasks: name one of them")
    if "class" not in config:
        config = {**config, **_changes(config, sources)}
    elif sources.fewshot is not None or sources.max_new_tokens is not None:
        raise DlbenchError(f"task {name!r} is written in Python: --fewshot and --max-new-tokens cannot change it")
    with quiet_data_libraries(), same_draws(), _told(name, path, config):
        made = _manager().load([config if "class" not in config else str(path)])["tasks"]
    return next(iter(made.values()))


def _changes(config: Mapping[str, Any], sources: Sources) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if sources.fewshot is not None:
        changed["num_fewshot"] = sources.fewshot
    if sources.max_new_tokens is not None and config.get("output_type", "generate_until") == "generate_until":
        kept = {k: v for k, v in (config.get("generation_kwargs") or {}).items() if k not in _LIMITS}
        changed["generation_kwargs"] = {**kept, "max_gen_toks": sources.max_new_tokens}
    if data := config.get("dataset_path"):
        known = mirrors.names(str(config["task"]), str(data), config.get("dataset_name"), config.get("metadata"))
        mirror = mirrors.find(sources.data_dir, known)
        if mirror is not None:
            changed.update(_mirrored(config, mirror))
            said = f"a mirror of {data}" + (f" at revision {mirror.revision}" if mirror.revision else "")
            changed["metadata"] = {**(config.get("metadata") or {}), "data": said}
    return changed


def _mirrored(config: Mapping[str, Any], mirror: mirrors.Mirror) -> dict[str, Any]:
    """Let a mirror answer for the hub's dataset."""
    columns = None
    changed: dict[str, Any] = {"dataset_kwargs": {}}
    if mirror.holds_documents():
        # Documents are what the normaliser of a task of ours makes; tasks of lm-eval read the hub's columns.
        if "mirror" in (config.get("metadata") or {}):
            changed["process_docs"] = None
        else:
            from dlbench.tasks.documents import COLUMNS

            columns = COLUMNS.get(str(config["dataset_path"]))
            if columns is None:
                raise DlbenchError(
                    f"{mirror.folder} holds documents, but task {config['task']!r} of lm-eval reads the columns of "
                    f"{config['dataset_path']}: make its mirror by `dlbench prefetch {config['task']}`"
                )
    splits = mirrors.Splits(mirror, columns)
    changed["custom_dataset"] = lambda **_: splits
    return changed


def _path(name: str, sources: Sources) -> Path:
    """The YAML of a task."""
    if name in suites.tasks() and (own := suites.tasks()[name].path) is not None:
        return own
    if name.endswith((".yaml", ".yml")):
        return _task_file(name)
    members = _members(name, sources)
    if members != [name]:
        raise DlbenchError(f"{name!r} is a group of tasks: name one of {', '.join(members[:5])}")
    entry = _entries(sources)[name]
    assert entry.path is not None
    return Path(entry.path)


def _task_file(name: str) -> Path:
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise DlbenchError(f"no task file {path}: give the path of an lm-eval task YAML, or a name")
    return path


def _entries(sources: Sources) -> Mapping[str, lm_eval_index.Entry]:
    """lm-eval's names, under those of the included folders."""
    found = dict(lm_eval_index.entries())
    for folder in sources.include:
        included = lm_eval_index.scan(Path(folder).expanduser().resolve(), strict=True)
        ours = {**suites.tasks(), **dict.fromkeys(suites.suites())}
        if clash := next((name for name in included if name in ours and included[name].kind != "tag"), None):
            raise DlbenchError(f"{included[clash].path} names a task {clash!r}, which dlbench has: rename it")
        found.update(included)
    return found


def _members(name: str, sources: Sources) -> list[str]:
    """The names of the tasks behind a task, group or tag of lm-eval or of an included folder."""
    known = _entries(sources)
    if name not in known:
        ours = [*suites.tasks(), *suites.suites()]
        raise unknown("task", name, [*ours, *known], see="`dlbench list tasks --all`")
    entry = known[name]
    if entry.kind in ("task", "python"):
        return [name]
    found: list[str] = []
    for member in entry.members:
        if member is None:
            raise DlbenchError(f"group {name!r} of lm-eval changes its tasks as it lists them: name tasks one by one")
        found.extend(_members(member, sources))
    return found


@functools.cache
def _manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=False)


@contextlib.contextmanager
def _told(name: str, path: Path | None, config: Mapping[str, Any] | None) -> Iterator[None]:
    """Make one line of whatever lm-eval, a task's functions or `datasets` raise."""
    try:
        yield
    except DlbenchError:
        raise
    except Exception as error:
        if _unreachable(error):
            data = config.get("dataset_path") if config else None
            remedy = (
                f"where it can, run `dlbench prefetch {name} --to DIR`, and give that folder by --data-dir DIR"
                if data
                else "written in Python, it loads its own: fill the hub's cache where there is a network"
            )
            said = f", {data}," if data else ""
            raise DlbenchError(
                f"task {name!r}: its data{said} is not on this machine and the hub cannot be reached; {remedy}"
            ) from error
        # `datasets` says what was wrong with a file one step further in
        cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" else error
        text = " ".join(f"{type(cause).__name__}: {cause}".split())
        place = f"task {name!r}" if path is None else f"task {name!r} ({path})"
        raise DlbenchError(f"{place} cannot be loaded: {text}") from error


def _unreachable(error: BaseException | None) -> bool:
    """Whether the hub, or the way to it, is the reason; requests and httpx have no exception in common."""
    names = ("ConnectionError", "ConnectError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectTimeout")
    while error is not None:
        if type(error).__name__ in names:
            return True
        error = error.__cause__ or error.__context__
    return False
