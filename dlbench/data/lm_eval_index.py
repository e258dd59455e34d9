"""An index of lm-eval's tasks, groups and tags by name, built without importing lm-eval.

lm-eval's own index reads fourteen thousand files, in sixteen seconds. Here only the few top-level keys are read that
decide what a file is, and the result is cached on disk per version of lm-eval.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import re
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from dlbench.errors import DlbenchError

_KEYS = ("task", "group", "tag", "include", "class", "output_type")
_KEY = re.compile(rb"""^(["']?)(\w+)\1[ \t]*:""", re.MULTILINE)
_WANTED = frozenset(key.encode() for key in _KEYS)
_SKIPPED = {"__pycache__", ".ipynb_checkpoints"}


class TaskEntry(NamedTuple):
    """One name that lm-eval knows."""

    name: str
    kind: Literal["task", "python", "group", "tag"]
    path: str | None
    """The YAML file; None for a tag."""
    output_type: str = ""
    """The kind of request, such as "generate_until"; empty where the file does not set it."""
    members: tuple[str | None, ...] = ()
    """Names in a group, in its order, or of a tag, sorted; None for a member that the group changes."""


class _HeadLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # PyYAML ships no types
    """Reads parts of lm-eval's YAML; values with a YAML tag, such as functions, become None."""


_HeadLoader.add_multi_constructor("!", lambda loader, suffix, node: None)


def entries() -> dict[str, TaskEntry]:
    """Every task, group and tag of the installed lm-eval; the first call writes a cache file, later ones read it."""
    return _entries(str(folder()), version("lm_eval"))


def scan(root: Path, *, strict: bool = False) -> dict[str, TaskEntry]:
    """Index the task files below a folder.

    Args:
        root: searched recursively, in the order of the paths; of two files with one name the first counts.
        strict: whether a file that cannot be read is an error; lm-eval skips such files.

    Raises:
        DlbenchError: a file cannot be read, and `strict` is set.
    """
    entries: dict[str, TaskEntry] = {}
    tags: dict[str, set[str]] = {}
    for path in sorted(_files(root)):
        try:
            if strict:
                yaml.load(Path(path).read_bytes(), Loader=_HeadLoader)
            config = _head(path)
        except (OSError, ValueError, yaml.YAMLError) as error:
            if strict:
                raise DlbenchError(f"{path} is no task YAML: {' '.join(str(error).split())}") from error
            continue
        name = config.get("group", config.get("task")) if "class" not in config else config.get("task")
        if not isinstance(name, str) or name in entries:
            continue
        members: tuple[str | None, ...] = ()
        kind: Literal["task", "python", "group"] = "python" if "class" in config else "task"
        if "group" in config and kind == "task":
            listed = config.get("task")
            kind = "group"
            members = tuple(m if isinstance(m, str) else None for m in (listed if isinstance(listed, list) else []))
        entries[name] = TaskEntry(name, kind, path, str(config.get("output_type") or ""), members)
        if kind != "group":
            given = config.get("tag")
            for tag in given if isinstance(given, list) else [given] if given else []:
                tags.setdefault(str(tag), set()).add(name)
    for tag, names in tags.items():
        if tag not in entries:
            entries[tag] = TaskEntry(tag, "tag", None, "", tuple(sorted(names)))
    return entries


def _files(root: Path) -> list[str]:
    paths: list[str] = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if f not in _SKIPPED]
        paths += [f"{folder}/{name}" for name in names if name.endswith(".yaml")]
    return paths


def _head(path: str) -> dict[str, Any]:
    """The wanted keys of a file; its own override those of the files that it includes."""
    config = dict(_own(path))
    included = config.pop("include", None)
    merged: dict[str, Any] = {}
    for name in included if isinstance(included, list) else [included] if included else []:
        merged.update(_head(os.path.normpath(os.path.join(os.path.dirname(path), name))))
    return {**merged, **config}


@functools.lru_cache(maxsize=1024)
def _own(path: str) -> dict[str, Any]:
    """The wanted keys of a file; only their lines are parsed as YAML."""
    with open(path, "rb") as file:
        text = file.read()
    keys = [(m.start(), m.group(2)) for m in _KEY.finditer(text)]
    ends = [start for start, _ in keys[1:]] + [len(text)]
    wanted = b"".join(text[start:end] for (start, key), end in zip(keys, ends, strict=True) if key in _WANTED)
    config = yaml.load(wanted.decode(), Loader=_HeadLoader)
    return config if isinstance(config, dict) else {}


@functools.cache
def _entries(folder: str, release: str) -> dict[str, TaskEntry]:
    path = _cache_file(folder, release)
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        rows = json.loads(path.read_bytes())
        return {
            name: TaskEntry(name, kind, file and os.path.join(folder, file), output_type, tuple(members))
            for name, kind, file, output_type, members in rows
        }
    scanned = scan(Path(folder))
    # If the cache cannot be written, the next start takes a few seconds longer.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump([_row(entry, folder) for entry in scanned.values()], file, separators=(",", ":"))
        os.replace(scratch, path)
    return scanned


def _row(entry: TaskEntry, folder: str) -> list[Any]:
    path = entry.path and entry.path.removeprefix(f"{folder}/")
    return [entry.name, entry.kind, path, entry.output_type, entry.members]


def folder() -> Path:
    """The folder of lm-eval's tasks.

    Raises:
        DlbenchError: lm-eval is not installed.
    """
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise DlbenchError("lm-eval is missing from this installation: install dlbench again")
    return Path(spec.submodule_search_locations[0]) / "tasks"


def _cache_file(folder: str, release: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    place = hashlib.sha256(folder.encode()).hexdigest()[:8]
    return Path(base) / "dlbench" / f"lm_eval-{release}-{place}.json"
