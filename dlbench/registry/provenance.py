"""What code is behind a name: hashes over files and the local modules that they import, nothing executed.

Modules of other distributions count by name and release; all else that an import leads to counts by its code, and so on
from there, but for the standard library. Of dlbench's own, only the folders that are asked for count: what may change
results elsewhere in dlbench raises `dlbench.evaluation.settings.PROTOCOL`.
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
"""Count by their release even where they lie in a checkout: there is too much of them, and content keys hold it too."""


@dataclass
class Walk:
    """Collects files and what they import."""

    own: tuple[str, ...] = ()
    """Packages of dlbench that count by their code."""
    belonging: frozenset[str] = frozenset()
    """Top-level names of the distribution in question, which count by their code though they are installed."""
    releases: bool = True
    """Whether other distributions count by their release too, or by name alone."""
    files: dict[Path, tuple[str, str]] = field(default_factory=dict)
    """File → its label, the same wherever it lies, and its hash."""
    others: set[str] = field(default_factory=set)

    def add(self, path: Path, label: str) -> None:
        """Take a file, and what it imports."""
        path = path.resolve()
        if path in self.files:
            return
        source = read(path)
        self.files[path] = label, source.sha256
        for one in source.imports:
            for found, name in self._found(one, path, label):
                self.add(found, name)

    def add_object(self, made: object) -> None:
        """Take the files of a function or class, or of an object's class, and of what a decorator has wrapped.

        Of what is installed the release counts.
        """
        for kind in _layers(made):
            self._add_layer(kind)

    def _add_layer(self, kind: Any) -> None:
        # A decorated function bears the name of the other's module, but its code lies in the decorator's.
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
        """sha256 over all that was taken; `more` goes to JSON."""
        files = [pair for one in self.files.values() for pair in MOVED.get(one, [one])]
        content = [sorted(files), sorted(self.others), *more]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def _found(self, one: Import, path: Path, label: str) -> Iterator[tuple[Path, str]]:
        """The local files behind an import of a file, with their labels."""
        if one.level:
            folder = path.parents[min(one.level, len(path.parents)) - 1]
            base = os.path.relpath(folder, path.parent)
            for found, inner in _below(folder, one.module, one.names):
                yield found, Path(os.path.normpath(Path(label).parent / base / inner)).as_posix()
            return
        top = one.module.partition(".")[0]
        if top == _OWN:
            yield from self._ours(one)
        if top == _OWN or top in sys.stdlib_module_names:
            return
        folders = [] if top in _LARGE else dict.fromkeys([*_homes(top), path.parent])
        local = [f for f in folders if top in self.belonging or not _INSTALLED & set(f.parts)]
        files = [(found, inner) for folder in local for found, inner in _below(folder, one.module, one.names)]
        yield from files
        if not files and self.releases and (release := _release(top)):
            self.others.add(f"{top} {release}")

    def _ours(self, one: Import) -> Iterator[tuple[Path, str]]:
        """Modules of dlbench, as far as they count."""
        for name in (one.module, *(f"{one.module}.{name}" for name in one.names)):
            if any(name.startswith(f"{package}.") for package in self.own):
                try:
                    spec = importlib.util.find_spec(name)
                except ImportError:
                    continue
                if spec is not None and spec.origin:
                    yield Path(spec.origin), f"{name.replace('.', '/')}.py"


def file(path: Path) -> str:
    """sha256 of the code of a file that is given by its path, and of the local modules that it imports."""
    walk = Walk(own=("dlbench.methods",))
    walk.add(path, path.name)
    return walk.digest()


def built_in(path: Path) -> str:
    """sha256 of the code of a method that comes with dlbench, whatever is installed beside it."""
    walk = Walk(own=("dlbench.methods",), releases=False)
    walk.add(path, f"dlbench/methods/{path.name}")
    return walk.digest()


def fitting() -> str:
    """sha256 of the code of dlbench that fits go through: what learns and tunes, and what methods derive from."""
    walk = Walk(releases=False)
    for name in ("dlbench.fit", "dlbench.method", "dlbench.prompting.teacher_forcing"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        origin = Path(spec.origin)
        for path in sorted(origin.parent.glob("*.py")) if spec.submodule_search_locations else [origin]:
            walk.add(path, f"{name.replace('.', '/')}/{path.name}")
    return walk.digest()


def installed(module: str, distribution: str) -> str:
    """sha256 of all files of an installed plugin's package, and of the local modules that they import.

    Args:
        module: that an entry point names.
        distribution: that brings it.
    """
    top = module.partition(".")[0]
    walk = Walk(own=("dlbench.methods",), belonging=frozenset({top, *_tops(distribution)}))
    for home in _homes(top):
        for path in _whole(home, module):
            walk.add(path, path.relative_to(home).as_posix())
    return walk.digest(distribution)


def imported(path: Path) -> set[str]:
    """Top-level names that a file, or a local module that it leads to, imports."""
    walk = Walk()
    walk.add(path, path.name)
    found = {one.module.partition(".")[0] for file in walk.files for one in read(file).imports if not one.level}
    return found - {""}


def _whole(home: Path, module: str) -> Iterator[Path]:
    """All files of the package that a module belongs to; the module alone where that is all there is.

    Folders above it that many distributions share, and that hold no `__init__.py`, are no part of it.
    """
    place = home
    for part in module.split("."):
        place = place / part
        if (found := module_file(place)) is not None:
            if found.parent != place:
                yield found
                return
            break
    inside = (p for p in sorted(place.rglob("*")) if p.is_file() and p.suffix != ".pyc")
    yield from (p for p in inside if not any(part.startswith(".") for part in p.relative_to(place).parts))


def _layers(made: object) -> Iterator[Any]:
    """A function or class, or an object's class, then what it holds of other functions: wrapped, closed over, bound."""
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
    """The files that importing names from a module runs, packages on the way too; none where it is not there."""
    place, parts = folder, list(filter(None, module.split(".")))
    for part in parts:
        found = module_file(place / part)
        if found is not None:
            yield found, found.relative_to(folder).as_posix()
        place = place / part
        if found is not None and found.parent != place:
            return  # a module, and no package
    for name in names:
        # A star takes what the package says, which any of its modules may be.
        several = sorted(place.glob("*.py")) if name == "*" else [module_file(place / name)]
        for found in filter(None, several):
            yield found, found.relative_to(folder).as_posix()


def module_file(place: Path) -> Path | None:
    """The file that runs on the import of a module of that name; None where there is none, or a plain folder."""
    tries = [place / "__init__.py", *(place.with_name(place.name + end) for end in (".py", *EXTENSION_SUFFIXES))]
    return next((path for path in tries if path.is_file()), None)


def _homes(top: str) -> list[Path]:
    """Folders that hold a top-level module or package, found without running it."""
    spec = _spec(top)
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder).resolve().parent for folder in spec.submodule_search_locations]
    return [Path(spec.origin).resolve().parent] if spec.origin and Path(spec.origin).is_file() else []


def _spec(top: str) -> ModuleSpec | None:
    """Where a top-level module would be imported from, whatever bears its name in memory already."""
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
    """Top-level names that a distribution brings."""
    try:
        files = metadata.distribution(distribution).files or []
    except metadata.PackageNotFoundError:
        return set()
    first = {path.parts[0] for path in files if path.suffix == ".py" or len(path.parts) > 1}
    return {name.removesuffix(".py") for name in first if name.removesuffix(".py").isidentifier()}
