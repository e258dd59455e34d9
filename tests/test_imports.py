"""Imports point down: from room to room, and from part to part inside the engine and the leaderboard; no circles."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"dlbench": "dlbench", "dlbench.methods": "methods", "dlbench.leaderboard": "leaderboard"}
ROOMS = (
    *("errors", "stats", "system", "terminal"),
    *("records", "method", "registry", "data", "models", "engine", "prompting", "fit"),
    *("methods", "audit", "testing", "bench", "evaluation", "train", "forecast", "export"),
    *("leaderboard", "submission", "tracking", "running", "lm_eval_model", "dry_run", "api"),
    *("commands", "cli", "__main__"),
)
"""From the ground up: a room imports those before it, docs/architecture.md says what each is for."""
ENGINE = (
    *("keyed_rng", "stop_strings", "flops", "kv", "sampling", "requests", "interfaces", "logits_processors"),
    *("layers", "kernels", "routing", "shared_prefix", "runtime", "prefill", "decoding", "proof"),
    *("speculative", "engine", "loglikelihood"),
)
LEADERBOARD = (
    *("formatting", "workers", "data", "analysis", "charts", "columns", "board", "exports"),
    *("pages", "terminal", "site", "chart_files"),
)
"""Parts of the two rooms that have several, from the ground up."""
MOST = 14
"""Modules in one folder."""
HEAVY = {"torch", "transformers", "lm_eval", "datasets", "accelerate", "safetensors"}


def modules():
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            yield ".".join([package, *(p for p in parts if p != "__init__")]), path


PATHS = dict(modules())


def imports(path, *, typing=True):
    """Names of the modules that a file imports, inside functions too, and where `typing`, for type checkers only."""

    def visit(nodes):
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from visit([*(node.body if typing else ()), *node.orelse])
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: write imports in full"
                # `from dlbench.data import loader` imports a module, `from dlbench import __version__` does not.
                for alias in node.names:
                    whole = f"{node.module}.{alias.name}"
                    yield whole if whole in PATHS else node.module
            else:
                yield from visit(ast.iter_child_nodes(node))

    yield from visit(ast.iter_child_nodes(ast.parse(path.read_text())))


def part(module, inside, order):
    """Where a module stands in an order of the parts of a package; None where it is not of this package."""
    if not module.startswith(f"{inside}."):
        return None
    name = module.removeprefix(f"{inside}.").partition(".")[0]
    return order.index(name) if name in order else None


@pytest.mark.parametrize(("module", "path"), [pytest.param(*m, id=m[0]) for m in modules()])
def test_imports_point_down(module, path):
    here = part(module, "dlbench", ROOMS)
    assert here is not None or module == "dlbench", f"{module} stands in no room: name it in ROOMS"
    # The package itself imports nothing: it names the types of what it passes on, for type checkers.
    for name in imports(path, typing=module != "dlbench"):
        there = part(name, "dlbench", ROOMS)
        assert there is None or there <= here, f"{module} must not import {name}"
        for inside, order in (("dlbench.engine", ENGINE), ("dlbench.leaderboard", LEADERBOARD)):
            one, other = part(module, inside, order), part(name, inside, order)
            assert one is not None or not module.startswith(f"{inside}."), f"{module} stands nowhere in {inside}"
            assert one is None or other is None or other <= one, f"{module} must not import {name}"


def test_no_module_reaches_itself():
    """Counted over all imports, those inside functions and for type checkers included, but for those of the top."""
    graph = {
        name: {n for n in imports(path, typing=name != "dlbench") if n in PATHS and n != name}
        for name, path in PATHS.items()
    }
    # A package that only hands on what its modules hold is looked through: they may import each other.
    state, circles = {}, []

    def visit(name, way):
        if state.get(name) == "open":
            circles.append([*way[way.index(name) :], name])
        if name in state:
            return
        state[name] = "open"
        for other in sorted(graph[name]):
            visit(other, [*way, name])
        state[name] = "done"

    for name in graph:
        visit(name, [])
    assert not circles, "\n".join(" → ".join(circle) for circle in circles)


def test_no_folder_is_crowded():
    folders = {}
    for path in PATHS.values():
        folders.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path.name)
    crowded = {f: len(n) - 1 for f, n in folders.items() if len(n) - 1 > MOST and f != "methods"}
    assert not crowded


def test_one_name_one_class():
    """A class name means one thing, wherever it stands."""
    places = {}
    for module, path in PATHS.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: at for name, at in places.items() if len(at) > 1} == {}


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(*m, id=m[0]) for m in modules() if m[0].startswith("dlbench.methods")]
)
def test_methods_import_the_interface_only(module, path):
    ours = {name for name in imports(path) if name.split(".")[0] == "dlbench"}
    assert all(name == "dlbench.method" for name in ours)


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(*m, id=m[0]) for m in modules() if m[0].startswith("dlbench.leaderboard")]
)
def test_the_leaderboard_never_reaches_torch(module, path):
    seen, todo = set(), [(module, path)]
    while todo:
        name, file = todo.pop()
        for imported in imports(file, typing=False):
            assert imported.split(".")[0] not in HEAVY, f"{module} reaches {imported} through {name}"
            if imported in PATHS and imported not in seen:
                seen.add(imported)
                todo.append((imported, PATHS[imported]))


@pytest.mark.parametrize(
    "module",
    [
        "cli",
        "running.config",
        "data.loader",
        "registry.methods",
        "data.suites",
        "data.task",
        "records.schema",
        "submission.validation",
        "train.spec",
    ],
)
def test_these_import_nothing_heavy(module):
    code = f"import sys, dlbench.{module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
