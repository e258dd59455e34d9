"""Code that must stay as it is: functions of the harness, of torch, numpy and Python, compared before and after."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

_HARNESS = "dlbench"
_OTHERS = (
    *("torch", "torch.nn", "torch.nn.functional", "torch.utils.flop_counter", "torch.overrides"),
    *("numpy", "builtins", "time", "os", "io", "json", "hashlib", "math", "random", "statistics"),
)
"""Modules besides the harness' own, whose functions and classes must stay; and torch's tensors and modules."""
_CLASSES = (("torch", "Tensor"), ("torch.nn", "Module"), ("torch.nn", "Linear"))


class CodeWatch:
    """Remembers functions as they were when it was made."""

    def __init__(self) -> None:
        """Note the functions of all modules that are loaded."""
        self._noted = {name: parts for module in _modules() for name, parts in _functions(module)}

    def replaced(self) -> list[str]:
        """Names of functions that are not what they were."""
        now = {name: parts for module in _modules() for name, parts in _functions(module)}
        return sorted(name for name, parts in self._noted.items() if not _same(parts, now.get(name)))


def _modules() -> list[ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == _HARNESS]
    found = (sys.modules.get(name) for name in (*names, *_OTHERS))
    return [module for module in found if isinstance(module, ModuleType)]


def _same(one: tuple[Any, ...], other: tuple[Any, ...] | None) -> bool:
    return other is not None and len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _functions(module: ModuleType) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Functions of a module and of its classes, by name: the object, and its code and defaults where it is Python's."""
    for name, value in list(vars(module).items()):
        where = f"{module.__name__}.{name}"
        if isinstance(value, type) and (value.__module__ == module.__name__ or (module.__name__, name) in _CLASSES):
            for member, inner in list(vars(value).items()):
                yield from _parts(f"{where}.{member}", inner)
        elif callable(value):
            yield from _parts(where, value)


def _parts(name: str, value: Any) -> Iterator[tuple[str, tuple[Any, ...]]]:
    inner = value
    if isinstance(value, property):
        inner = value.fget
    elif isinstance(value, (staticmethod, classmethod)):
        inner = value.__func__
    inner = getattr(inner, "__wrapped__", inner)
    if isinstance(inner, FunctionType):
        yield name, (value, inner.__code__, inner.__defaults__)
    elif callable(value) and not isinstance(value, type):
        yield name, (value,)
