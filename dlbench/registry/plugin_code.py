"""Where the code of a method stands: the line of what it defines, and the line where an exception left it."""

from __future__ import annotations

import ast
import contextlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlbench
from dlbench.errors import DlbenchError, MethodError
from dlbench.registry.method_sources import PLUGIN, named, plugins

_HOME = Path(dlbench.__file__).resolve().parent
_INTERFACE = "dlbench.method"
_INSTALLED = {"site-packages", "dist-packages"}


def own_classes(kind: type) -> list[type]:
    """The classes that a method is made of, from itself to its bases, without those of `dlbench.method` and Python."""
    return [
        one
        for one in kind.__mro__
        if not f"{one.__module__}.".startswith(f"{_INTERFACE}.") and one.__module__ not in ("builtins", "abc", "typing")
    ]


def owner_of(kind: type, name: str) -> type | None:
    """The class among a method's own that defines an attribute; None where only the interface does."""
    return next((one for one in own_classes(kind) if name in vars(one)), None)


def place(kind: type, name: str | None = None) -> str:
    """File and line of an attribute or method of a class, or of the class itself."""
    owner = (owner_of(kind, name) if name else None) or kind
    file = file_of(owner)
    if file is None:
        return owner.__module__
    node = _class_node(file, owner.__name__)
    inside = next((n for n in node.body if name in _names(n)), node) if node is not None and name else node
    return f"{file}, line {inside.lineno}" if inside is not None else str(file)


def file_of(kind: type) -> Path | None:
    """The file that a class is defined in; None where it has none."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return Path(file) if file and Path(file).is_file() else None


def function_node(kind: type, name: str) -> tuple[Path, ast.FunctionDef] | None:
    """The syntax tree of a method that a plugin defines, and its file."""
    owner = owner_of(kind, name)
    file = None if owner is None else file_of(owner)
    if owner is None or file is None or (node := _class_node(file, owner.__name__)) is None:
        return None
    return next(((file, n) for n in node.body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def blame(method: object, error: BaseException, where: str = "") -> MethodError | None:
    """The error of a method's code in one line, with its file and line; None where the code had no part in it.

    Args:
        method: a method or its class.
        error: what was raised.
        where: what the method was doing, such as "in fit".
    """
    line = raised_at(method if isinstance(method, type) else type(method), error)
    return None if line is None else failure(method, error, where, line)


def failure(method: object, error: BaseException, where: str = "", line: str | None = None) -> MethodError:
    """The error of a method in one line; its place is `line`, or where the exception left the method's code."""
    kind = method if isinstance(method, type) else type(method)
    line = line or raised_at(kind, error) or place(kind)
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return MethodError(f"method {kind.__name__} failed{where and f' {where}'}: {text} ({line})")


def raised_at(kind: type, error: BaseException) -> str | None:
    """File and line of the last frame of an exception that is a method's code; None where there is none."""
    own = {file.resolve() for one in own_classes(kind) if (file := file_of(one)) is not None}
    folders = {file.parent for file in own}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename).resolve()
        if file in own or any(_beside(file, folder) for folder in folders):
            return f"{frame.filename}, line {frame.lineno}"
    return None


@contextlib.contextmanager
def blaming(method: object, where: str) -> Iterator[None]:
    """Turn whatever is raised while a method's code runs into an error that names the method, its file and line."""
    try:
        yield
    except DlbenchError:
        raise
    except (Exception, SystemExit) as error:
        raise failure(method, error, where) from error


def _beside(file: Path, folder: Path) -> bool:
    """Whether a file belongs to the plugin in a folder: below it, and neither dlbench's nor installed there."""
    if not file.is_relative_to(folder) or file.is_relative_to(_HOME):
        return False
    return not _INSTALLED & set(file.relative_to(folder).parts)


def _class_node(file: Path, name: str) -> ast.ClassDef | None:
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    return next((n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name), None)


def _names(node: ast.stmt) -> set[str]:
    """Names that a statement of a class body defines."""
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    targets: list[Any] = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return {t.id for t in targets if isinstance(t, ast.Name)}


def guilty(error: BaseException) -> MethodError | None:
    """The error of the plugin whose code an exception passed through last; None where it passed through none."""
    files = {Path(m.__file__): n.removeprefix(PLUGIN) for n, m in plugins() if m.__file__}
    for source in named().values():
        if source.origin != "built-in" and source.path is not None:
            files[source.path] = source.name
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if (name := files.get(Path(frame.filename))) is not None:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            return MethodError(f"method {name!r} failed: {text} ({frame.filename}, line {frame.lineno})")
    return None
