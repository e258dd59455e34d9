"""The tasks that come with dlbench, read from their YAML without importing lm-eval.

A suite is a group YAML, a task a task YAML; both stand in a folder of `dlbench.tasks`. Only names and descriptions are
read here: `dlbench.harness` hands the same files to lm-eval, which gives them their meaning.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dlbench.errors import DlbenchError

PACKAGE = "dlbench.tasks"


@dataclass(frozen=True)
class TaskInfo:
    """One line of `dlbench list tasks`."""

    name: str
    suite: str
    """The suite it belongs to; empty where none lists it."""
    about: str
    metric: str
    """The primary metric."""
    version: str
    path: Path
    """The task's YAML."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML ships no types
    """Reads lm-eval's YAML; a function stays the text that names it."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@functools.cache
def tasks() -> dict[str, TaskInfo]:
    """The built-in tasks by name: suite by suite, in the suite's order."""
    configs = _configs()
    members = {name: suite for suite, names in suites().items() for name in names}
    order = [*members, *sorted(set(configs) - set(members))]
    return {name: _info(*configs[name], suite=members.get(name, "")) for name in order}


@functools.cache
def suites() -> dict[str, tuple[str, ...]]:
    """The built-in suites by name, each with the names of its tasks."""
    found = {str(c["group"]): tuple(map(str, c["task"])) for _, c in _files() if "group" in c}
    for suite, names in found.items():
        if missing := [name for name in names if name not in _configs()]:
            raise DlbenchError(f"suite {suite!r} lists {', '.join(missing)}, for which there is no YAML")
    return found


@functools.cache
def _configs() -> dict[str, tuple[Path, dict[str, Any]]]:
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path, config in _files():
        if "group" in config or "task" not in config:
            continue
        name = str(config["task"])
        if name in found:
            raise DlbenchError(f"two tasks are named {name!r}: {found[name][0]} and {path}; rename one")
        found[name] = (path, config)
    return found


@functools.cache
def _files() -> tuple[tuple[Path, dict[str, Any]], ...]:
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise DlbenchError("the built-in tasks are missing: install dlbench again")
    paths = sorted(path for folder in folders for path in Path(folder).glob("*/*.yaml"))
    return tuple((path, _read(path)) for path in paths)


def _read(path: Path) -> dict[str, Any]:
    try:
        # A subclass of SafeLoader: it constructs plain values only.
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise DlbenchError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    return config if isinstance(config, dict) else {}


def _info(path: Path, config: dict[str, Any], suite: str) -> TaskInfo:
    metadata = config.get("metadata") or {}
    metrics = [str(entry["metric"]) for entry in config.get("metric_list") or []]
    return TaskInfo(
        name=str(config["task"]),
        suite=suite,
        about=str(metadata.get("about", "")),
        metric=metrics[0] if metrics else "",
        version=str(metadata.get("version", "")),
        path=path,
    )
