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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias

from dlbench.errors import DlbenchError
from dlbench.registry import kv_policies, outline
from dlbench.registry.method_sources import PLUGIN, MethodSource, from_file, named
from dlbench.terminal.suggest import unknown

if TYPE_CHECKING:
    from dlbench.method import Method, Oracle

    MethodClass: TypeAlias = type[Method] | type[Oracle]

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
    """Replace the words `core` and `all` by the methods they stand for, and drop repetitions; the order stays."""
    sets = {"core": CORE, "all": names()}
    return tuple(dict.fromkeys(name for word in given for name in sets.get(word, (word,))))


def names() -> tuple[str, ...]:
    """Names of all built-in and installed methods, sorted.

    Raises:
        DlbenchError: two methods have the same name.
    """
    return tuple(sorted(named()))


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
        raise DlbenchError(f"method {source.name!r} is broken: {_failure(error, source)}") from error
    if source.origin == "file":
        _refuse_shadowed_modules(source)
    return _method_class(module, source)


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
    return module


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
            raise DlbenchError(f"method {source.name!r}: {place} has no method class {source.class_name!r}")
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
        raise DlbenchError(
            f"method {source.name!r}: {place} must define exactly one public class that derives from a class of "
            f"dlbench.method, but it defines {listed}; start the name of others with _"
        )
    chosen = classes[0]
    if inspect.isabstract(chosen):
        missing = ", ".join(sorted(chosen.__abstractmethods__))
        raise DlbenchError(f"method {source.name!r}: {place}: class {chosen.__name__} does not define {missing}")
    if fault := _misdeclared(chosen):
        raise DlbenchError(f"method {source.name!r}: {place}: {fault}")
    return chosen


def _misdeclared(chosen: MethodClass) -> str:
    """What is wrong with the class attributes of a method; empty where nothing is."""
    from dlbench.method import Knob, Oracle

    if issubclass(chosen, Oracle):
        return ""
    kv, knob, variants = chosen.kv, chosen.knob, chosen.variants
    policies = kv_policies.names()
    if not isinstance(kv, tuple) or not kv or not set(kv) <= set(policies):
        return f"kv = {kv!r} is no tuple of {', '.join(policies)}"
    if knob is not None and not isinstance(knob, Knob):
        return f"knob = {knob!r} is no Knob(name, low, high)"
    if not isinstance(variants, tuple) or not variants or not all(isinstance(one, Mapping) for one in variants):
        return f"variants = {variants!r} is no tuple of mappings of parameters"
    return ""
