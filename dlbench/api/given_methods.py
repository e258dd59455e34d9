"""Methods as a Python user gives them: by name or path, as a class, or as an instance with its parameters."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from dlbench.api.method_source import source_of
from dlbench.errors import DlbenchError
from dlbench.method import Method, Oracle
from dlbench.registry import methods as registry
from dlbench.registry.method_sources import named
from dlbench.system.files import write_text

GivenMethod: TypeAlias = str | Path | type[Method] | type[Oracle] | Method | Oracle
"""A name, the path of a plugin file, a class, or an instance."""


def resolve(given: Sequence[GivenMethod], folder: Path) -> tuple[tuple[str, ...], dict[str, dict[str, Any]]]:
    """The methods of a run by name or path, and the parameters that instances set, by the method's name.

    Args:
        given: methods.
        folder: where classes of a notebook or script are written as plugin files.

    Raises:
        DlbenchError: a class is in no file and cannot be written to one, or an instance holds weights.
    """
    names: list[str] = []
    settings: dict[str, dict[str, Any]] = {}
    for one in given:
        name = str(one) if isinstance(one, str | Path) else _name(one if isinstance(one, type) else type(one), folder)
        known, instance = registry.name_of(name), None if isinstance(one, str | Path | type) else one
        if known in settings or (instance is not None and name in names):
            raise DlbenchError(
                f"method {known!r} is given twice, with parameters of its own: a run takes one setting of a method, so "
                "give each a call with an `out` of its own, or a class of its own"
            )
        if instance is not None:
            settings[known] = _parameters(instance)
        names.append(name)
    return tuple(dict.fromkeys(names)), settings


def class_of(given: str | Path) -> type[Method] | type[Oracle]:
    """The class of a method that is given by name or path.

    Raises:
        DlbenchError: there is none, or it is broken.
    """
    registry.check_name(str(given))
    return registry.load(str(given))


def _name(kind: type[Method] | type[Oracle], folder: Path) -> str:
    """What a run calls a class: the name of an installed method, or the path of a file that holds it."""
    module = sys.modules.get(kind.__module__)
    for name, source in named().items():
        if source.module == kind.__module__ and registry.load(name) is kind:
            return name
    try:
        file = inspect.getsourcefile(kind)
    except (OSError, TypeError):  # of a notebook
        file = None
    if file is not None and Path(file).is_file() and kind.__module__ != "__main__" and module is not None:
        return str(Path(file))
    path = folder / f"{_snake(kind.__name__)}.py"
    write_text(path, source_of(kind))
    return str(path)


def _parameters(method: Method | Oracle) -> dict[str, Any]:
    """The parameters that an instance sets: those unlike the defaults, and those in which its variants differ."""
    if isinstance(method, Method) and method.weights():
        raise DlbenchError(
            f"this {type(method).__name__} holds fitted weights, and a run makes its own fits: give the class, or "
            "decode with the instance by dlbench.evaluate"
        )
    variants: Sequence[Mapping[str, Any]] = type(method).variants
    varied = {name for variant in variants for name in variant}
    defaults = _defaults(type(method))
    return {n: v for n, v in method.params().items() if n in varied or n not in defaults or defaults[n] != v}


def _defaults(kind: type[Method] | type[Oracle]) -> dict[str, Any]:
    """The parameters of an instance that is given none; empty where there is no such instance."""
    try:
        return kind.from_params({}).params()
    except (TypeError, ValueError):
        return {}


def _snake(name: str) -> str:
    """EverySecond → every_second."""
    letters = [
        f"_{c.lower()}" if c.isupper() and i and not name[i - 1].isupper() else c.lower() for i, c in enumerate(name)
    ]
    return "".join(letters).lstrip("_")
