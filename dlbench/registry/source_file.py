"""What a content key depends on in one source file: a hash of its code without comments, and what it imports.

Nothing is executed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlbench.registry.code_only import without_prose


@dataclass(frozen=True)
class Import:
    """One import of a file: `module` as written, from a package `level` folders up (0: absolute), of `names`."""

    level: int
    module: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceFile:
    """One file: a hash of its code, or of its bytes where it is not Python, and what it imports."""

    sha256: str
    imports: tuple[Import, ...] = ()


def read(path: Path) -> SourceFile:
    """Hash a file and list its imports; cached until the file changes."""
    stat = path.stat()
    return _read(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4096)
def _read(path: Path, _changed: int, _size: int) -> SourceFile:
    if path.suffix != ".py":
        with path.open("rb") as handle:
            return SourceFile(hashlib.file_digest(handle, "sha256").hexdigest())
    raw = path.read_bytes()
    try:
        code, imports = without_prose(raw).encode(), tuple(_imports(ast.parse(raw)))
    except (SyntaxError, ValueError, RecursionError):  # such as a file for another release of Python: hashed as it is
        code, imports = raw, ()
    return SourceFile(hashlib.sha256(code).hexdigest(), imports)


def _imports(tree: ast.AST) -> Iterator[Import]:
    """All imports of a module, in functions too, without those for type checkers, which never run."""
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
            module = name.lstrip(".")
            yield Import(len(name) - len(module), module)
        yield from _imports(node)


def _named(call: ast.Call) -> str | None:
    """The module of `import_module("name")`, `import_module(".name", package)` or `__import__("name")`."""
    called = getattr(call.func, "attr", getattr(call.func, "id", ""))
    given = [*call.args[:1], *(one.value for one in call.keywords if one.arg == "name")]
    if called not in ("import_module", "__import__") or not given:
        return None
    value = getattr(given[0], "value", None)
    return value if isinstance(value, str) and value.strip(".") else None
