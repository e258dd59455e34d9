"""The summary, parameters and flags of a method, read from its source without running it.

Importing a method imports torch, which takes seconds; `dlbench list methods` has to answer at once. So everything is
taken from the syntax tree, that of the base classes in `dlbench.method` too.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

INTERFACE = "dlbench.method"
_PAPER = re.compile(r"\barXiv[:\s]*(\d{4}\.\d{4,5})", re.IGNORECASE)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a method: a field of its dataclass."""

    name: str
    type: str
    """The annotation, as written."""
    default: str | None
    """The default as Python text; None where the parameter must be given."""
    help: str
    """First line of the field's docstring; empty where there is none."""


@dataclass(frozen=True)
class Outline:
    """What is known of a method without importing it."""

    summary: str
    parameters: tuple[Parameter, ...] = ()
    knob: str | None = None
    deployable: bool = True
    fitted: bool = False
    paper: str | None = None


def read(path: Path, class_name: str | None = None) -> Outline:
    """Read the outline of the method in a file.

    Args:
        path: the Python file.
        class_name: the class to describe; without it the first public class with a base from `dlbench.method`.

    Raises:
        SyntaxError: the file is not Python.
        OSError: the file cannot be read.
    """
    tree = ast.parse(path.read_bytes(), filename=str(path))
    module_doc = ast.get_docstring(tree) or ""
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    bases = _imported_bases(tree)
    wanted = [class_name] if class_name else [n for n in classes if not n.startswith("_")]
    chains = [chain for n in wanted if n in classes and (chain := _chain(classes[n], classes, bases))]
    paper = match.group(1) if (match := _PAPER.search(module_doc)) else None
    if not chains:
        return Outline(summary=_first_line(module_doc), paper=paper)
    chain = chains[0]
    return Outline(
        summary=_first_line(ast.get_docstring(chain[0]) or module_doc),
        parameters=_parameters(chain),
        knob=_knob(chain),
        deployable=_flag(chain, "deployable", True),
        fitted=_flag(chain, "fitted", False),
        paper=paper,
    )


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0].strip()


@functools.cache
def _interface() -> dict[str, ast.ClassDef]:
    spec = importlib.util.find_spec(INTERFACE)
    if spec is None or spec.origin is None:
        return {}
    trees = [ast.parse(path.read_bytes()) for path in sorted(Path(spec.origin).parent.glob("*.py"))]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _imported_bases(tree: ast.Module) -> dict[str, str]:
    """Map the name that the file gives a class of `dlbench.method` to that class's own name."""
    names: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module == INTERFACE:
            names.update({alias.asname or alias.name: alias.name for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module == "dlbench":
            here = [alias.asname or alias.name for alias in node.names if alias.name == "method"]
            names.update({f"{module}.{name}": name for module in here for name in _interface()})
        elif isinstance(node, ast.Import) and any(alias.name == INTERFACE for alias in node.names):
            names.update({f"{INTERFACE}.{name}": name for name in _interface()})
    return names


def _chain(node: ast.ClassDef, local: dict[str, ast.ClassDef], bases: dict[str, str]) -> list[ast.ClassDef]:
    """The class and its bases up to Method or Oracle; empty where it is no method."""
    interface = _interface()
    for base in map(ast.unparse, node.bases):
        if base in bases and (known := interface.get(bases[base])):
            above = _chain(known, interface, {name: name for name in interface})
            # The roots, Method and Oracle, derive from ABC alone: there the chain ends.
            return [node, *(above or [known])]
        if base in local and local[base] is not node and (above := _chain(local[base], local, bases)):
            return [node, *above]
    return []


def _is_parameter(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
        return False
    if statement.target.id.startswith("_") or "ClassVar" in ast.unparse(statement.annotation):
        return False
    if isinstance(statement.value, ast.Call) and ast.unparse(statement.value.func).endswith("field"):
        return all(k.arg != "init" or ast.unparse(k.value) != "False" for k in statement.value.keywords)
    return True


def _parameters(chain: list[ast.ClassDef]) -> tuple[Parameter, ...]:
    parameters: dict[str, Parameter] = {}
    for node in reversed(chain):
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if not _is_parameter(statement):
                continue
            assert isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
            text = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                text = _first_line(str(following.value.value))
            name = statement.target.id
            parameters[name] = Parameter(name, ast.unparse(statement.annotation), _default(statement.value), text)
    return tuple(parameters.values())


def _default(value: ast.expr | None) -> str | None:
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field"):
        given = {k.arg: k.value for k in value.keywords}
        if "default" in given:
            return ast.unparse(given["default"])
        return f"{ast.unparse(given['default_factory'])}()" if "default_factory" in given else None
    return None if value is None else ast.unparse(value)


def _assigned(chain: list[ast.ClassDef], name: str) -> ast.expr | None:
    for node in chain:
        for statement in node.body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if isinstance(statement, ast.AnnAssign):
                targets = [statement.target]
            if any(isinstance(t, ast.Name) and t.id == name for t in targets):
                assert isinstance(statement, ast.Assign | ast.AnnAssign)
                return statement.value
    return None


def _knob(chain: list[ast.ClassDef]) -> str | None:
    value = _assigned(chain, "knob")
    if isinstance(value, ast.Call):
        named = [k.value for k in value.keywords if k.arg == "name"]
        value = next(iter([*value.args[:1], *named]), None)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _flag(chain: list[ast.ClassDef], name: str, fallback: bool) -> bool:
    value = _assigned(chain, name)
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, bool) else fallback
