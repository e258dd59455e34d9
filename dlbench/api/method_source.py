"""A method class of a notebook or script as a plugin file: the class with what it uses, and their imports.

A run has several processes and hashes a method's code, so it needs a file. Nothing is executed here.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import textwrap
from types import ModuleType
from typing import Any

from dlbench.errors import DlbenchError

_PLAIN = (bool, int, float, str, bytes, type(None))


def source_of(kind: type) -> str:
    """The source of a plugin file that holds a class.

    Functions, classes and plain constants of the same module come with it; what is imported there is imported.

    Raises:
        DlbenchError: the class or something that it uses cannot be written so; the message names it.
    """
    return _Plugin(kind).text()


class _Plugin:
    """Collects the parts of the file, each before what uses it."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.module = sys.modules[kind.__module__]
        self.imports: dict[str, str] = {}
        self.parts: dict[str, str] = {}

    def text(self) -> str:
        self._take(self.kind.__name__, self.kind)
        head = '"""From a notebook or script."""\n\nfrom __future__ import annotations\n'
        return "\n\n".join([head + "\n" + "\n".join(sorted(self.imports.values())), *self.parts.values()]) + "\n"

    def _take(self, name: str, value: Any) -> None:
        """Take what a name stands for into the file, after all that it uses itself."""
        if name in self.imports or name in self.parts:
            return
        home = getattr(value, "__module__", None)
        if isinstance(value, ModuleType):
            self.imports[name] = f"import {value.__name__}" + ("" if value.__name__ == name else f" as {name}")
        elif isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(isinstance(v, _PLAIN) for v in value)):
            self.parts[name] = f"{name} = {value!r}"
        elif home == self.module.__name__ and callable(value):
            source = self._source(name, value)
            self.parts[name] = ""  # it may use itself
            for used in _names(source):
                if used != name and hasattr(self.module, used):
                    self._take(used, getattr(self.module, used))
            del self.parts[name]
            self.parts[name] = source
        elif (origin := _origin(value, called := _called(value, name))) is not None:
            self.imports[name] = f"from {origin} import {called}" + ("" if called == name else f" as {name}")
        else:
            raise self._cannot(name, "is neither imported, a function, a class nor a plain constant")

    def _source(self, name: str, value: Any) -> str:
        if "<locals>" in value.__qualname__:
            raise self._cannot(name, "is defined inside a function")
        source = _class_source(value, self.module) if isinstance(value, type) else None
        try:
            return source or textwrap.dedent(inspect.getsource(value)).rstrip()
        except (OSError, TypeError):
            raise self._cannot(name, "has no source (in a plain Python prompt nothing has)") from None

    def _cannot(self, name: str, why: str) -> DlbenchError:
        own = "it" if name == self.kind.__name__ else f"{name!r}, which it uses,"
        return DlbenchError(
            f"method {self.kind.__name__} cannot be run from here: {own} {why}; put the class into a file of its own "
            "and give its path"
        )


def _class_source(kind: type, module: ModuleType) -> str | None:
    """The source of a class that was defined where one of its functions was, or where some function of its module was.

    `inspect` looks for a class in its module's file, which a notebook does not have. A cell has a name, though, under
    which `linecache` knows its lines.
    """
    own = {f.__code__ for f in vars(kind).values() if _is_of(f, kind)}
    others = {
        f.__code__
        for value in vars(module).values()
        for f in (value, *getattr(value, "__dict__", {}).values())
        if inspect.isfunction(f) and f.__module__ == module.__name__
    }
    for code in own or others:
        lines = linecache.getlines(code.co_filename)
        for node in ast.walk(ast.parse("".join(lines))):
            if isinstance(node, ast.ClassDef) and node.name == kind.__name__:
                start = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                end = node.end_lineno or node.lineno
                if code in others - own or start <= code.co_firstlineno <= end:
                    return "".join(lines[start - 1 : end]).rstrip()
    return None


def _is_of(value: Any, kind: type) -> bool:
    """Whether something is a function that stands in a class, neither generated nor taken from elsewhere."""
    return inspect.isfunction(value) and value.__qualname__ == f"{kind.__qualname__}.{value.__name__}"


def _called(value: Any, name: str) -> str:
    return str(getattr(value, "__name__", name))


def _origin(value: Any, called: str) -> str | None:
    """The package nearest to the top that offers a value by its name; None where none does."""
    parts = str(getattr(value, "__module__", None) or "").split(".")
    packages = (".".join(parts[: n + 1]) for n in range(len(parts)))
    return next((name for name in packages if getattr(sys.modules.get(name), called, None) is value), None)


def _names(source: str) -> list[str]:
    """Names that some source uses, in order; annotations that are texts do not count."""
    return list(dict.fromkeys(node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)))
