"""The suites and tasks that come with dlbench, read from their YAML without importing lm-eval.

A suite is a group YAML and a task is a task YAML, each in a folder of `dlbench.tasks`. A suite may list tasks of
lm-eval too, and describes them in its own file. Only names and descriptions are read here; `dlbench.data.loader` passes
the same files to lm-eval, which interprets them.
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
    path: Path | None
    """The task's YAML; None for a task of lm-eval."""
    fit: str = ""
    """The split that methods are fitted on."""
    test: str = ""
    """The split that is scored."""
    limit: int | None = None
    """Most new tokens, where the task writes text."""
    cite: str = ""
    mirror: str = ""
    """The folder of its data in a folder of mirrors, where the YAML names one."""

    @property
    def origin(self) -> str:
        """Where the task comes from."""
        return "lm-eval" if self.path is None else "dlbench"


class _TaskLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # PyYAML ships no types
    """Reads lm-eval's YAML, with functions as the text that names them."""


class FunctionName(str):
    """The name of a function that a task's YAML calls."""

    __slots__ = ()


_TaskLoader.add_constructor("!function", lambda loader, node: FunctionName(loader.construct_scalar(node)))


@functools.cache
def tasks() -> dict[str, TaskInfo]:
    """All tasks of the suites by name: suite by suite, in the suite's order, then tasks that no suite lists."""
    configs, described = _configs(), _described()
    members: dict[str, str] = {}
    for suite, names in suites().items():
        for name in names:
            members.setdefault(name, suite)
    order = [*members, *sorted(set(configs) - set(members))]
    return {
        name: _info(*configs[name], suite=members.get(name, ""))
        if name in configs
        else _foreign(name, described[name], members[name])
        for name in order
    }


@functools.cache
def suites() -> dict[str, tuple[str, ...]]:
    """The suites by name, each with the names of its tasks."""
    listed = {str(c["group"]): tuple(map(str, c["task"])) for _, c in _files() if "group" in c}
    known = {*_configs(), *_described()}
    for suite, names in listed.items():
        if missing := [name for name in names if name not in known]:
            raise DlbenchError(f"suite {suite!r} lists {', '.join(missing)}, for which there is no YAML")
    return listed


def about(suite: str) -> str:
    """A suite's description, in one line."""
    return str(_of_group(suite).get("about", ""))


def sample_of(suite: str) -> int | None:
    """Return how many documents of each task a run takes that is not told; None where the suite does not say."""
    limit = _of_group(suite).get("limit")
    return None if limit is None else int(limit)


def needs_mirror(suite: str) -> frozenset[str]:
    """Return the tasks that the suite holds only where there is a local mirror of their data."""
    return frozenset(map(str, _of_group(suite).get("mirrored") or ()))


def _of_group(suite: str) -> dict[str, Any]:
    """The metadata of a suite."""
    return next(_metadata(c) for _, c in _files() if c.get("group") == suite)


def folder() -> Path:
    """The folder of the suites."""
    spec = importlib.util.find_spec(PACKAGE)
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise DlbenchError("the built-in tasks are missing: install dlbench again")
    return Path(places[0])


@functools.cache
def _configs() -> dict[str, tuple[Path, dict[str, Any]]]:
    configs: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path, config in _files():
        if "group" in config or "task" not in config:
            continue
        name = str(config["task"])
        if name in configs:
            raise DlbenchError(f"two tasks are named {name!r}: {configs[name][0]} and {path}; rename one")
        configs[name] = (path, config)
    return configs


@functools.cache
def _described() -> dict[str, dict[str, Any]]:
    """Tasks of lm-eval that suites list: name → the suite's description of it."""
    described: dict[str, dict[str, Any]] = {}
    for _, config in _files():
        if "group" in config:
            described.update(_metadata(config).get("tasks") or {})
    return described


@functools.cache
def _files() -> tuple[tuple[Path, dict[str, Any]], ...]:
    # nano first: a run without options takes it
    paths = sorted(folder().glob("*/*.yaml"), key=lambda path: (path.parent.name != "nano", path))
    return tuple((path, read(path)) for path in paths)


def read(path: Path) -> dict[str, Any]:
    """A task's YAML with what it includes, functions as the text that names them.

    Raises:
        DlbenchError: it is not YAML, or an included file is missing.
    """
    try:
        # A subclass of SafeLoader, which constructs plain values only.
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_TaskLoader)
    except yaml.YAMLError as error:
        raise DlbenchError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DlbenchError(f"{path} cannot be read: {reason}") from error
    if not isinstance(config, dict):
        return {}
    included = config.pop("include", None)
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included] if included else []:
        merged.update(_part((path.parent / name).resolve()))
    return {**merged, **config}


@functools.cache
def _part(path: Path) -> dict[str, Any]:
    """A YAML that others include, read once."""
    return read(path)


def _metadata(config: dict[str, Any]) -> dict[str, Any]:
    metadata = config.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _info(path: Path, config: dict[str, Any], suite: str) -> TaskInfo:
    metadata = _metadata(config)
    metrics = [str(entry["metric"]) for entry in config.get("metric_list") or []]
    return TaskInfo(
        name=str(config["task"]),
        suite=suite,
        about=str(metadata.get("about", "")),
        metric=metrics[0] if metrics else "",
        version=str(metadata.get("version", "")),
        path=path,
        fit=str(config.get("training_split") or config.get("validation_split") or ""),
        test=str(config.get("test_split") or config.get("validation_split") or ""),
        limit=(config.get("generation_kwargs") or {}).get("max_gen_toks"),
        cite=str(metadata.get("cite", "")),
        mirror=str(metadata.get("mirror", "")),
    )


def _foreign(name: str, said: dict[str, Any], suite: str) -> TaskInfo:
    about, metric, version, fit, test, cite = (
        str(said.get(key, "")) for key in ("about", "metric", "version", "fit", "test", "cite")
    )
    return TaskInfo(name, suite, about, metric, version, None, fit, test, None, cite)
