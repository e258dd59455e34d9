"""Find, describe and load methods by their names, or by the path of a plugin file.

The name of a built-in method is the name of its file; the name of an entry point in the group `dlbench.methods` is the
name of that method; the name of a plugin file is its stem. Nothing is imported before `load`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from dlbench.errors import DlbenchError, MethodError
from dlbench.registry import declarations, outline
from dlbench.registry.method_sources import PLUGIN, MethodSource, clashes, from_file, named
from dlbench.terminal.suggest import unknown

if TYPE_CHECKING:
    from dlbench.method import Method, Oracle

    MethodClass: TypeAlias = type[Method] | type[Oracle]

READ = "__dlbench_read__"
"""In the module of a plugin file: the modules that it read, itself and those beside it, by `written`."""
CORE = ("full", "static_skip", "static_exit", "unified_skip", "random_skip", "calm", "hidden_router", "oracle")
"""Built-in methods of a run that names none: the table of the paper (arXiv 2410.20022) and its baselines."""


@dataclass(frozen=True)
class MethodInfo:
    """One line of `dlbench list methods`."""

    name: str
    summary: str
    parameters: tuple[outline.Parameter, ...]
    knob: str | None
    deployable: bool
    fitted: bool
    paper: str | None
    """arXiv number of the paper that the file cites first."""
    origin: str
    path: str | None


def is_path(method: str) -> bool:
    """Whether a method is given by the path of a plugin file, not by its name."""
    return method.endswith(".py") or os.sep in method or "/" in method


def name_of(method: str) -> str:
    """The method's name, for a name or a path."""
    return Path(method).stem if is_path(method) else method


def expand(given: Sequence[str]) -> tuple[str, ...]:
    """Replace the words `core` and `all` by the methods they stand for, and drop repetitions; the order stays.

    The methods that `unusable` tells are left out of both.
    """
    bad = unusable(given)
    sets = {"core": CORE, "all": names()}
    usable = {word: tuple(name for name in members if name not in bad) for word, members in sets.items()}
    return tuple(dict.fromkeys(name for word in given for name in usable.get(word, (word,))))


def unusable(given: Sequence[str]) -> dict[str, DlbenchError]:
    """Installed methods that `core` or `all`, where given, would stand for, and that share their name or are broken."""
    bad = {}
    if "core" in given or "all" in given:
        bad = {name: error for name, error in clashes().items() if "all" in given or name in CORE}
    for name, source in named().items() if "all" in given else ():
        if source.origin != "built-in":
            try:
                load(name)
            except DlbenchError as error:
                bad[name] = error
    return bad


def names() -> tuple[str, ...]:
    """Names of all built-in and installed methods, sorted, without names that two have."""
    return tuple(sorted(named().keys() - clashes().keys()))


def check_name(method: str) -> None:
    """Check that a name which was asked for stands for one method.

    Raises:
        DlbenchError: it stands for two.
    """
    if method in clashes():
        raise clashes()[method]


def describe(method: str) -> MethodInfo:
    """Describe a method, given by name or path, without importing it.

    Raises:
        DlbenchError: there is no such method, or its file cannot be read.
    """
    source = locate(method)
    if source.path is None:
        outlined = outline.Outline(summary="(not readable without importing it)")
    else:
        try:
            outlined = outline.read(source.path, source.class_name)
        except SyntaxError as error:
            raise DlbenchError(
                f"method {source.name!r} is broken: {source.path}, line {error.lineno}: {error.msg}; correct the file"
            ) from error
        except OSError as error:
            raise DlbenchError(f"method {source.name!r}: cannot read {source.path}: {error.strerror}") from error
    return MethodInfo(
        name=source.name,
        summary=outlined.summary,
        parameters=outlined.parameters,
        knob=outlined.knob,
        deployable=outlined.deployable,
        fitted=outlined.fitted,
        paper=outlined.paper,
        origin=source.origin,
        path=None if source.path is None else str(source.path),
    )


def locate(method: str) -> MethodSource:
    """Find where a method, given by name or path, comes from.

    Raises:
        DlbenchError: there is no such method, or its name is taken twice.
    """
    if is_path(method):
        return from_file(Path(method))
    known = named()
    if method not in known:
        check_name(method)
        raise unknown("method", method, known, see="`dlbench list methods`")
    return known[method]


def load(method: str) -> MethodClass:
    """Import a method, given by name or path, and return its class.

    Raises:
        DlbenchError: there is no such method, its file fails, or it does not hold exactly one complete method.
    """
    source = locate(method)
    try:
        module = _load_file(source) if source.origin == "file" else importlib.import_module(source.module)
    except (Exception, SystemExit) as error:
        raise MethodError(f"method {source.name!r} is broken: {_failure(error, source)}") from error
    if source.origin == "file":
        _refuse_shadowed_modules(source)
    return _method_class(module, source)


def load_packed(name: str, root: Path, label: str, class_name: str | None) -> MethodClass:
    """Import a method whose source lies in a folder of its own, and return its class.

    Args:
        name: the method's.
        root: the folder, from which its modules import each other; it comes first in `sys.path` from now on.
        label: path of the file that defines the method, below the folder.
        class_name: where an entry point named the class.

    Raises:
        DlbenchError: its code fails, or it does not hold exactly one complete method.
    """
    path, module = root / label, ".".join(Path(label).with_suffix("").parts).removesuffix(".__init__")
    source = MethodSource(name, "packed", module, class_name, path)
    top = module.partition(".")[0]
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    for loaded in [one for one in sys.modules if one == top or one.startswith(f"{top}.")]:
        del sys.modules[loaded]  # of another submission
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # a manifest lists all files of the folder
    try:
        return _method_class(importlib.import_module(module), source)
    except (Exception, SystemExit) as error:
        raise DlbenchError(f"method {name!r} is broken: {_failure(error, source)}") from error
    finally:
        sys.dont_write_bytecode = writes


def _load_file(source: MethodSource) -> ModuleType:
    assert source.path is not None
    loaded = sys.modules.get(source.module)
    if loaded is not None and loaded.__file__ == str(source.path):
        return loaded
    spec = importlib.util.spec_from_file_location(source.module, source.path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up while they are made.
    sys.modules[source.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[source.module]
        raise
    vars(module)[READ] = written([source.module, *_beside(source.path)])
    return module


def _beside(path: Path) -> list[str]:
    """Names of the modules that a plugin file has imported from its own folder, directly or through each other."""
    from dlbench.registry import provenance

    tops = {name for name in provenance.imported(path) if provenance.module_file(path.parent / name)}
    return [name for name in sys.modules if name.partition(".")[0] in tops]


def written(names: Iterable[str]) -> dict[str, int | None]:
    """When the files of imported modules were last written, in nanoseconds; None where there is none (any more)."""
    files = {name: getattr(sys.modules.get(name), "__file__", None) for name in names}
    return {n: Path(f).stat().st_mtime_ns if f and Path(f).is_file() else None for n, f in files.items()}


def _refuse_shadowed_modules(source: MethodSource) -> None:
    """Raise if two plugin files each import a module of the same name beside them, with different code.

    A process holds one module of a name, so of two plugins with a `helper.py` each, one would run the other's code.

    Raises:
        DlbenchError: there is such a module.
    """
    from dlbench.registry import provenance

    assert source.path is not None
    own = source.path.parent
    loaded = {n: getattr(m, "__file__", None) for n, m in sys.modules.items() if n.startswith(PLUGIN)}
    others = [(Path(path), n.removeprefix(PLUGIN)) for n, path in loaded.items() if path and Path(path).parent != own]
    names = provenance.imported(source.path)
    for path, other in others:
        for name in sorted(names & provenance.imported(path)):
            mine, theirs = (provenance.module_file(folder / name) for folder in (own, path.parent))
            if mine and theirs and mine != theirs and provenance.file(mine) != provenance.file(theirs):
                del sys.modules[source.module]
                raise DlbenchError(
                    f"methods {other!r} and {source.name!r} each bring a module {name!r} of their own ({theirs}, "
                    f"{mine}), and Python takes one for both: rename one of the two, or run the methods one by one"
                )


def _failure(error: BaseException, source: MethodSource) -> str:
    """What made an import fail, with the line of the method's own file where there is one."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if source.path is not None and Path(f.filename) == source.path]
    if own:
        return f"{source.path}, line {own[-1].lineno}: {text}"
    return f"{source.where}: {text}"


def _method_class(module: ModuleType, source: MethodSource) -> MethodClass:
    from dlbench.method import Method, Oracle

    place = source.path or source.where
    if source.class_name is not None:
        chosen = getattr(module, source.class_name, None)
        if not (isinstance(chosen, type) and issubclass(chosen, Method | Oracle)):
            raise MethodError(f"method {source.name!r}: {place} has no method class {source.class_name!r}")
        classes: list[MethodClass] = [chosen]
    else:
        classes = [
            value
            for name, value in vars(module).items()
            if isinstance(value, type)
            and issubclass(value, Method | Oracle)
            and value.__module__ == module.__name__
            and value.__name__ == name
            and not name.startswith("_")
        ]
    if len(classes) != 1:
        listed = ", ".join(c.__name__ for c in classes) or "none"
        raise MethodError(
            f"method {source.name!r}: {place} must define exactly one public class that derives from a class of "
            f"dlbench.method, but it defines {listed}; start the name of others with _"
        )
    chosen = classes[0]
    if inspect.isabstract(chosen):
        missing = ", ".join(sorted(chosen.__abstractmethods__))
        raise MethodError(f"method {source.name!r}: {place}: class {chosen.__name__} does not define {missing}")
    if fault := declarations.fault(chosen):
        raise MethodError(f"method {source.name!r}: {fault}")
    return chosen
