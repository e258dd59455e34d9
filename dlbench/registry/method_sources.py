"""Where methods come from: built-in files, entry points of other distributions, and plugin files given by path.

One name stands for one method, since a board on which a name means two things cannot be trusted: asking for a name
that two methods have is an error. The others are not concerned, and dlbench itself goes on using a built-in method
whose name somebody else has taken.
Nothing is imported here.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from dlbench.errors import DlbenchError

GROUP = "dlbench.methods"
"""Group of the entry points that name methods."""
PACKAGE = "dlbench.methods"
PLUGIN = "dlbench_plugin_"
"""Before the name of a plugin file: the name that its module gets."""


@dataclass(frozen=True)
class MethodSource:
    """Where a method comes from."""

    name: str
    origin: str
    """`built-in`, `file`, or the distribution that brings the entry point."""
    module: str
    """The module to import; for a plugin file, the name its module gets."""
    class_name: str | None
    """The class, where an entry point names it."""
    path: Path | None
    """The file; None where it cannot be found without importing."""

    @property
    def where(self) -> str:
        """Where the method comes from, for messages."""
        if self.origin == "built-in":
            return f"built-in ({self.path})"
        if self.origin == "file":
            return str(self.path)
        target = f"{self.module}:{self.class_name}" if self.class_name else self.module
        return f"{target} of {self.origin}"


def named() -> dict[str, MethodSource]:
    """All methods by name: built-in ones, and installed ones whose name is theirs alone."""
    return found()[0]


def clashes() -> dict[str, DlbenchError]:
    """Names that stand for several methods, with the error of asking for one."""
    return found()[1]


@functools.cache
def found() -> tuple[dict[str, MethodSource], dict[str, DlbenchError]]:
    """`named` and `clashes`, cached."""
    sources: dict[str, MethodSource] = {}
    taken: dict[str, DlbenchError] = {}
    for source in (*_built_in(), *_installed()):
        if source.name in sources:
            taken.setdefault(source.name, _clash(sources[source.name], source))
        sources.setdefault(source.name, source)
    return {n: source for n, source in sources.items() if n not in taken or source.origin == "built-in"}, taken


def _clash(first: MethodSource, second: MethodSource) -> DlbenchError:
    remedy = "rename the file" if second.origin == "file" else f"uninstall {second.origin} or rename its entry point"
    return DlbenchError(f"two methods are named {first.name!r}: {first.where} and {second.where}; {remedy}")


def _built_in() -> Iterable[MethodSource]:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DlbenchError("the built-in methods are missing: install dlbench again")
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).glob("[!_]*.py")):
            yield MethodSource(path.stem, "built-in", f"{PACKAGE}.{path.stem}", None, path)


def _installed() -> Iterable[MethodSource]:
    # Imported here: it is the slowest import of starting up.
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        origin = point.dist.name if point.dist else "an unnamed distribution"
        yield MethodSource(point.name, origin, point.module, point.attr or None, _file_of(point.module))


def _file_of(module: str) -> Path | None:
    """The file of a module, found without importing the packages that contain it."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or []:
        stem = Path(folder, *rest)
        for path in (stem.with_name(stem.name + ".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    return None


def from_file(path: Path) -> MethodSource:
    """The method in a file.

    Raises:
        DlbenchError: there is no such file, or its name cannot be a method's, or is another method's.
    """
    path = path.expanduser().resolve()
    if not path.is_file() or path.suffix != ".py":
        raise DlbenchError(f"no method file {path}: give a name from `dlbench list methods` or the path of a .py file")
    name = path.stem
    if not name.isidentifier():
        raise DlbenchError(f"{path}: the file's name is the method's name, so use letters, digits and _ only")
    source = MethodSource(name, "file", f"{PLUGIN}{name}", None, path)
    if name in clashes():
        raise clashes()[name]
    taken = named().get(name)
    if taken is None:
        return source
    if taken.path is not None and taken.path.resolve() == path:
        return taken
    raise _clash(taken, source)


def plugins() -> list[tuple[str, ModuleType]]:
    """The plugin files that this process has imported, by the names of their modules."""
    return [(name, module) for name, module in sys.modules.items() if name.startswith(PLUGIN)]
