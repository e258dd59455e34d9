"""Load a task through lm-eval: its YAML, or a file of documents, with what a run changes of it.

lm-eval is imported when a task is loaded, not before: its import takes a second. What a name means is decided in
`dlbench.data.resolve`; lm-eval is given the file.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dlbench.data import jsonl_task, mirrors, suites
from dlbench.data.resolve import resolve
from dlbench.data.task import Task
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.system.seeding import same_draws
from dlbench.terminal.quiet import quiet_data_libraries

_PLAIN = Sources()
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens")


@functools.lru_cache(maxsize=64)
def load_task(name: str, sources: Sources = _PLAIN) -> Task:
    """Load a task by its name; see `dlbench.data.resolve`.

    Args:
        name: of a single task.
        sources: where data comes from, and what is changed of the task.

    Raises:
        DlbenchError: there is no such task, its data cannot be loaded, or it is of a kind that dlbench does not run.
    """
    resolved = resolve(name, sources)
    if resolved.path is None:
        raise DlbenchError(f"{name!r} stands for several tasks: name one of {', '.join(resolved.tasks[:5])}")
    if resolved.kind == "file":
        path, config = None, jsonl_task.config(name, sources)
    else:
        path, config = resolved.path, _read_yaml(name, resolved.path)
    return Task(_build(name, path, config, sources), reload=(load_task, (name, sources)))


def _read_yaml(name: str, path: Path) -> dict[str, Any]:
    """A task's YAML as lm-eval reads it, functions imported."""
    suites.read(path)  # its messages about broken YAML are clearer than lm-eval's
    with quiet_data_libraries(), _one_line_errors(name, path, None):
        from lm_eval.tasks._yaml_loader import load_yaml

        return dict(load_yaml(path))


def _build(name: str, path: Path | None, config: dict[str, Any], sources: Sources) -> Any:
    """Let lm-eval build a task of its configuration, with the changes that the options make."""
    if "group" in config:
        raise DlbenchError(f"{name!r} is a group of tasks: name one of them")
    if "class" not in config:
        config = {**config, **_changes(config, sources)}
    elif sources.changes_prompts:
        raise DlbenchError(
            f"task {name!r} is written in Python: --fewshot, --max-new-tokens and --system-instruction cannot change it"
        )
    with quiet_data_libraries(), same_draws(), _one_line_errors(name, path, config):
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
    if sources.system_instruction is not None:
        metadata = changed.get("metadata", config.get("metadata")) or {}
        changed["metadata"] = {**metadata, "system_instruction": sources.system_instruction}
    return changed


def _mirrored(config: Mapping[str, Any], mirror: mirrors.Mirror) -> dict[str, Any]:
    """Changes of a configuration that replace the hub's dataset by a mirror."""
    columns = None
    changed: dict[str, Any] = {"dataset_kwargs": {}}
    if mirror.holds_documents():
        # Tasks of dlbench normalise the hub's rows to documents; tasks of lm-eval read the hub's columns.
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
    splits = mirrors.MirrorSplits(mirror, columns)
    changed["custom_dataset"] = lambda **_: splits
    return changed


@functools.cache
def _manager() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=False)


@contextlib.contextmanager
def _one_line_errors(name: str, path: Path | None, config: Mapping[str, Any] | None) -> Iterator[None]:
    """Raise whatever lm-eval, a task's functions or `datasets` raise as a DlbenchError of one line."""
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
        # `datasets` gives the reason in the cause
        cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" else error
        text = " ".join(f"{type(cause).__name__}: {cause}".split())
        place = f"task {name!r}" if path is None else f"task {name!r} ({path})"
        raise DlbenchError(f"{place} cannot be loaded: {text}") from error


def _unreachable(error: BaseException | None) -> bool:
    """Whether an error means that the hub cannot be reached; requests and httpx share no exception class."""
    names = ("ConnectionError", "ConnectError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectTimeout")
    while error is not None:
        if type(error).__name__ in names:
            return True
        error = error.__cause__ or error.__context__
    return False
