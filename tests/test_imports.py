"""Imports point one way: cli → runner → harness → engine → {cache, meter, backbones} → method; no torch for a board."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"dlbench": "dlbench", "dlbench.methods": "methods", "dlbench.leaderboard": "leaderboard"}
# A module may import what stands further down. Those that are not named here are bound by the other tests only.
FLOORS = [
    {"dlbench.__main__"},
    {"dlbench.cli"},
    {"dlbench.commands"},
    {"dlbench.run.runner", "dlbench.train"},
    {"dlbench.run.config"},
    {"dlbench.data.loader"},
    {"dlbench.data.task"},
    {"dlbench.engine"},
    {"dlbench.models.backbone", "dlbench.registry.methods", "dlbench.data.suites"},
    {"dlbench.method", "dlbench.registry.outline"},
    {"dlbench.terminal.suggest"},
    {"dlbench.errors"},
]
PACKAGES = tuple(f"dlbench.{name}" for name in ("commands", "engine", "fit", "method", "stats", "train"))
"""Within one of these modules may import each other."""
HEAVY = {"torch", "transformers", "lm_eval", "datasets", "accelerate", "safetensors"}


def modules():
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *(p for p in parts if p != "__init__")]), path


def imports(path, *, module, at_start_only=False):
    """Names of the modules a file imports; those under `if TYPE_CHECKING` never run and do not count."""

    def visit(nodes):
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from visit(node.orelse)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: write imports in full"
                # `from dlbench import harness` imports a module, `from dlbench import __version__` does not.
                for alias in node.names:
                    yield f"{node.module}.{alias.name}" if node.module in FOLDERS else node.module
            elif not (at_start_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
                yield from visit(ast.iter_child_nodes(node))

    yield from visit(ast.iter_child_nodes(ast.parse(path.read_text())))


def floor(name):
    for number, names in enumerate(FLOORS):
        if any(name == known or name.startswith(known + ".") for known in names):
            return number
    return None


@pytest.mark.parametrize(("module", "path"), [pytest.param(*m, id=m[0]) for m in modules()])
def test_imports_point_down(module, path):
    here = floor(module)
    for name in imports(path, module=module):
        there = floor(name)
        within = any(all(n.startswith(p) for n in (name, module)) for p in PACKAGES)
        if here is None or there is None or within:
            continue
        # `Task.__reduce__` names the function that loads it again, which is the one way up.
        if (module, name) == ("dlbench.data.task", "dlbench.data.loader"):
            continue
        assert there > here or module == name, f"{module} must not import {name}"


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(*m, id=m[0]) for m in modules() if m[0].startswith("dlbench.methods")]
)
def test_methods_import_the_interface_only(module, path):
    ours = {name for name in imports(path, module=module) if name.split(".")[0] == "dlbench"}
    assert ours <= {"dlbench.method"}


@pytest.mark.parametrize(("module", "path"), [pytest.param(*m, id=m[0]) for m in modules() if "leaderboard" in m[0]])
def test_the_leaderboard_never_reaches_torch(module, path):
    seen, todo, paths = set(), [(module, path)], dict(modules())
    while todo:
        name, file = todo.pop()
        for imported in imports(file, module=name):
            assert imported.split(".")[0] not in HEAVY, f"{module} reaches {imported} through {name}"
            if imported in paths and imported not in seen:
                seen.add(imported)
                todo.append((imported, paths[imported]))


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "run.config",
        "data.loader",
        "registry.methods",
        "data.suites",
        "data.task",
        "records.schema",
        "train.spec",
    ],
)
def test_these_import_nothing_heavy(module):
    code = f"import sys, dlbench.{module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
