"""What code is behind a name: hashes over files and the local modules that they import, nothing executed.

Modules of other distributions count by name and release; all else that an import leads to counts by its code, and so on
from there, but for the standard library. Of dlbench's own, only the folders that are asked for count: what may change
results elsewhere in dlbench raises `dlbench.plan.PROTOCOL`.
"""

from __future__ import annotations

import ast
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
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from dlbench.purecode import without_prose

_INSTALLED = {"site-packages", "dist-packages"}
_OWN = "dlbench"
_LARGE = ("torch", "transformers")
"""Count by their release even where they lie in a checkout: there is too much of them, and content keys hold it too."""


@dataclass(frozen=True)
class Import:
    """One import of a file: `module` as written, from a package `level` folders up (0: absolute), of `names`."""

    level: int
    module: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """One file: a hash of its code, or of its bytes where it is not Python, and what it imports."""

    sha256: str
    imports: tuple[Import, ...] = ()


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
        """Take the file of a function or class, or of an object's class; the release of what is installed."""
        kind = made if hasattr(made, "__qualname__") else type(made)
        module = str(getattr(kind, "__module__", None) or "")
        try:
            path = Path(inspect.getsourcefile(kind) or "")  # type: ignore[arg-type]
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
        content = [sorted(self.files.values()), sorted(self.others), *more]
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
    for name in ("dlbench.fit", "dlbench.method", "dlbench.teacher"):
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


def _whole(home: Path, module: str) -> Iterator[Path]:
    """All files of the package that a module belongs to; the module alone where that is all there is.

    Folders above it that many distributions share, and that hold no `__init__.py`, are no part of it.
    """
    place = home
    for part in module.split("."):
        place = place / part
        if (found := _module(place)) is not None:
            if found.parent != place:
                yield found
                return
            break
    inside = (p for p in sorted(place.rglob("*")) if p.is_file() and p.suffix != ".pyc")
    yield from (p for p in inside if not any(part.startswith(".") for part in p.relative_to(place).parts))


def read(path: Path) -> Source:
    """What counts of a file; read once, as long as it stays as it is."""
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, _changed: int, _size: int) -> Source:
    if path.suffix != ".py":
        with path.open("rb") as handle:
            return Source(hashlib.file_digest(handle, "sha256").hexdigest())
    raw = path.read_bytes()
    try:
        code, imports = without_prose(raw).encode(), tuple(_imports(ast.parse(raw)))
    except (SyntaxError, ValueError, RecursionError):  # for another release of Python, say: as it stands
        code, imports = raw, ()
    return Source(hashlib.sha256(code).hexdigest(), imports)


def _imports(tree: ast.AST) -> Iterator[Import]:
    """All imports of a module, wherever they stand; those for type checkers alone never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in (
            getattr(node.test, "id", ""),
            getattr(node.test, "attr", ""),
        ):
            for other in node.orelse:
                yield from _imports(ast.Module([other], []))
            continue
        if isinstance(node, ast.Import):
            yield from (Import(0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield Import(node.level, node.module or "", tuple(alias.name for alias in node.names))
        elif isinstance(node, ast.Call) and (name := _named(node)) is not None:
            yield Import(0, name)
        yield from _imports(node)


def _named(call: ast.Call) -> str | None:
    """The module of `import_module("name")` or `__import__("name")`."""
    called = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if called not in ("import_module", "__import__") or not call.args:
        return None
    value = getattr(call.args[0], "value", None)
    return value if isinstance(value, str) and value and not value.startswith(".") else None


def _below(folder: Path, module: str, names: Iterable[str]) -> Iterator[tuple[Path, str]]:
    """The files that importing names from a module runs, packages on the way too; none where it is not there."""
    place, parts = folder, list(filter(None, module.split(".")))
    for part in parts:
        found = _module(place / part)
        if found is not None:
            yield found, found.relative_to(folder).as_posix()
        place = place / part
        if found is not None and found.parent != place:
            return  # a module, and no package
    for name in names:
        if (found := _module(place / name)) is not None:
            yield found, found.relative_to(folder).as_posix()


def _module(place: Path) -> Path | None:
    """The file that runs on the import of a module of that name; None where there is none, or a plain folder."""
    tries = [place / "__init__.py", *(place.with_name(place.name + end) for end in (".py", *EXTENSION_SUFFIXES))]
    return next((path for path in tries if path.is_file()), None)


def _homes(top: str) -> list[Path]:
    """Folders that hold a top-level module or package, found without running it."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder).resolve().parent for folder in spec.submodule_search_locations]
    return [Path(spec.origin).resolve().parent] if spec.origin and Path(spec.origin).is_file() else []


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
