"""Hashes of the code behind methods, fits and scores, for content keys. Nothing is executed.

A hash covers a file and, recursively, the local modules that it imports. Modules of other distributions count by name
and release, the standard library does not count. Of dlbench itself only the packages that a caller names count: a
change of results elsewhere in dlbench raises `dlbench.records.track.PROTOCOL`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from typing import Any

from dlbench.registry.moved_code import MOVED
from dlbench.registry.source_file import Import, read

_INSTALLED = {"site-packages", "dist-packages"}
_OWN = "dlbench"
_LARGE = ("torch", "transformers")
"""Count by their release even where they are a checkout: they are large, and content keys hold their versions too."""


@dataclass
class Walk:
    """Collects files, and the files that these import, to hash them."""

    own: tuple[str, ...] = ()
    """Packages of dlbench whose code counts."""
    belonging: frozenset[str] = frozenset()
    """Top-level names of the plugin's own distribution: their code counts although they are installed."""
    releases: bool = True
    """Whether the release of other distributions counts; otherwise only their name."""
    files: dict[Path, tuple[str, str]] = field(default_factory=dict)
    """File → its label, the same wherever it lies, and its hash."""
    others: set[str] = field(default_factory=set)

    def add(self, path: Path, label: str) -> None:
        """Add a file, and what it imports."""
        path = path.resolve()
        if path in self.files:
            return
        source = read(path)
        self.files[path] = label, source.sha256
        for one in source.imports:
            for imported_path, name in self._files_of(one, path, label):
                self.add(imported_path, name)

    def add_object(self, made: object) -> None:
        """Add the files of a function or class, or of an object's class, and of what a decorator has wrapped.

        Where these are installed, their release counts.
        """
        for kind in _layers(made):
            self._add_layer(kind)

    def _add_layer(self, kind: Any) -> None:
        # A decorated function carries the module name of the wrapped one; its code is in the decorator's module.
        module = str(getattr(kind, "__globals__", {}).get("__name__") or getattr(kind, "__module__", None) or "")
        try:
            path = Path(inspect.getsourcefile(kind) or "")
        except TypeError:  # built in
            return
        top = module.partition(".")[0]
        if top == _OWN:
            if any(f"{module}.".startswith(f"{package}.") for package in self.own):
                self.add(path, f"{module.replace('.', '/')}.py")
        elif not _INSTALLED & set(path.parts):
            if top not in sys.stdlib_module_names and path.is_file():
                self.add(path, path.name)
        elif self.releases:
            self.others.add(f"{top} {_release(top)}")

    def digest(self, *more: object) -> str:
        """sha256 over all that was added, and over `more` as JSON."""
        return digest(self.files.values(), self.others, *more)

    def _files_of(self, one: Import, path: Path, label: str) -> Iterator[tuple[Path, str]]:
        """The local files that an import loads, with their labels."""
        if one.level:
            folder = path.parents[min(one.level, len(path.parents)) - 1]
            base = os.path.relpath(folder, path.parent)
            for loaded, inner in _below(folder, one.module, one.names):
                yield loaded, Path(os.path.normpath(Path(label).parent / base / inner)).as_posix()
            return
        top = one.module.partition(".")[0]
        if top == _OWN:
            yield from self._ours(one)
        if top == _OWN or top in sys.stdlib_module_names:
            return
        folders = [] if top in _LARGE else dict.fromkeys([*_homes(top), path.parent])
        local = [f for f in folders if top in self.belonging or not _INSTALLED & set(f.parts)]
        files = [(loaded, inner) for folder in local for loaded, inner in _below(folder, one.module, one.names)]
        yield from files
        if not files and self.releases and (release := _release(top)):
            self.others.add(f"{top} {release}")

    def _ours(self, one: Import) -> Iterator[tuple[Path, str]]:
        """Modules of dlbench that an import loads, of the packages that count."""
        for name in (one.module, *(f"{one.module}.{name}" for name in one.names)):
            if any(name.startswith(f"{package}.") for package in self.own):
                try:
                    spec = importlib.util.find_spec(name)
                except ImportError:
                    continue
                if spec is not None and spec.origin:
                    yield Path(spec.origin), f"{name.replace('.', '/')}.py"


def digest(files: Iterable[tuple[str, str]], others: Iterable[str], *more: object) -> str:
    """sha256 over code.

    Args:
        files: label and hash of each file.
        others: names and releases of the distributions that they import.
        *more: what else counts, as JSON.
    """
    pairs = [tuple(pair) for one in files for pair in MOVED.get(one, [one])]
    content = [sorted(pairs), sorted(others), *more]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_walk(path: Path) -> Walk:
    """The code of a plugin file, of its whole package where it is in one, and of local modules that it imports."""
    walk = Walk(own=("dlbench.methods",))
    walk.add(path, path.name)
    package = path.resolve().parent
    if (package / "__init__.py").is_file():
        while (package.parent / "__init__.py").is_file():
            package = package.parent
        for other in _files_below(package):
            walk.add(other, other.relative_to(package.parent).as_posix())
    return walk


def file(path: Path) -> str:
    """sha256 of the code of a plugin file and of the local modules that it imports."""
    return file_walk(path).digest()


def built_in_walk(path: Path) -> Walk:
    """The code of a built-in method, independent of installed releases."""
    walk = Walk(own=("dlbench.methods",), releases=False)
    walk.add(path, f"dlbench/methods/{path.name}")
    return walk


def built_in(path: Path) -> str:
    """sha256 of the code of a built-in method, independent of installed releases."""
    return built_in_walk(path).digest()


def fitting() -> str:
    """sha256 of the code of dlbench that fits depend on: learning, tuning, and the base classes of methods."""
    walk = Walk(releases=False)
    for name in ("dlbench.fit", "dlbench.method", "dlbench.prompting.teacher_forcing"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        origin = Path(spec.origin)
        for path in sorted(origin.parent.glob("*.py")) if spec.submodule_search_locations else [origin]:
            walk.add(path, f"{name.replace('.', '/')}/{path.name}")
    return walk.digest()


def installed_walk(module: str, distribution: str) -> Walk:
    """All files of an installed plugin's package and the local modules that they import.

    Args:
        module: the one that the entry point names.
        distribution: the one that brings the entry point.
    """
    top = module.partition(".")[0]
    walk = Walk(own=("dlbench.methods",), belonging=frozenset({top, *_tops(distribution)}))
    for home in _homes(top):
        for path in _whole(home, module):
            walk.add(path, path.relative_to(home).as_posix())
    return walk


def installed(module: str, distribution: str) -> str:
    """sha256 of an installed plugin's code; for the arguments see `installed_walk`."""
    return installed_walk(module, distribution).digest(distribution)


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, directly or through local modules."""
    walk = Walk()
    walk.add(path, path.name)
    return {one.module.partition(".")[0] for file in walk.files for one in read(file).imports if not one.level} - {""}


def _whole(home: Path, module: str) -> Iterator[Path]:
    """All files of the top-level package that a module belongs to, or the file of a module outside of packages.

    Namespace packages (folders without `__init__.py`, which several distributions may share) are not part of it.
    """
    place = home
    for part in module.split("."):
        place = place / part
        if (loaded := module_file(place)) is not None:
            if loaded.parent != place:
                yield loaded
                return
            break
    yield from _files_below(place)


def _files_below(folder: Path) -> Iterator[Path]:
    """All files below a folder, without hidden and compiled ones."""
    inside = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix != ".pyc")
    yield from (p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _layers(made: object) -> Iterator[Any]:
    """A function or class (or an object's class), then the functions that it wraps, closes over or binds."""
    waiting: list[Any] = [made]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, functools.partial):
            waiting += [one.func, *filter(callable, one.args), *filter(callable, one.keywords.values())]
            continue
        one = getattr(one, "__func__", one)
        yield one if hasattr(one, "__qualname__") else type(one)
        waiting += [one.__wrapped__] if hasattr(one, "__wrapped__") else []
        for cell in getattr(one, "__closure__", None) or ():
            with contextlib.suppress(ValueError):  # not filled yet
                waiting += [cell.cell_contents] if callable(cell.cell_contents) else []


def _below(folder: Path, module: str, names: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """The files that importing names from a module runs, with those of its packages; none where there is no module."""
    place, parts = folder, list(filter(None, module.split(".")))
    for part in parts:
        loaded = module_file(place / part)
        if loaded is not None:
            yield loaded, loaded.relative_to(folder).as_posix()
        place = place / part
        if loaded is not None and loaded.parent != place:
            return  # a module, not a package
    for name in names:
        # A star may import any module of the package.
        several = sorted(place.glob("*.py")) if name == "*" else [module_file(place / name)]
        for loaded in filter(None, several):
            yield loaded, loaded.relative_to(folder).as_posix()


def module_file(place: Path) -> Path | None:
    """The file that importing a module runs; None where there is none, as for a namespace package."""
    tries = [place / "__init__.py", *(place.with_name(place.name + end) for end in (".py", *EXTENSION_SUFFIXES))]
    return next((path for path in tries if path.is_file()), None)


def _homes(top: str) -> list[Path]:
    """Folders that contain a top-level module or package, found without importing it."""
    spec = _spec(top)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder).resolve().parent for folder in spec.submodule_search_locations]
    return [Path(spec.origin).resolve().parent] if spec.origin and Path(spec.origin).is_file() else []


def _spec(top: str) -> ModuleSpec | None:
    """Where a top-level module would be imported from, even if a module of that name is imported already."""
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(top, None)
        except (ImportError, ValueError, AttributeError):
            continue
        if spec is not None:
            return spec
    return None


@functools.cache
def _release(top: str) -> str:
    """Release of the distribution that a top-level module belongs to; empty where there is none."""
    try:
        return metadata.version(top)
    except (metadata.PackageNotFoundError, ValueError):
        names = _distributions().get(top, [])
    return metadata.version(names[0]) if names else ""


@functools.cache
def _distributions() -> dict[str, list[str]]:
    return {top: list(names) for top, names in metadata.packages_distributions().items()}


def _tops(distribution: str) -> set[str]:
    """Top-level names that a distribution installs."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return set()
    first = {path.parts[0] for path in files if path.suffix == ".py" or len(path.parts) > 1}
    return {name.removesuffix(".py") for name in first if name.removesuffix(".py").isidentifier()}
