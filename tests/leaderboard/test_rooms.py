"""The order of the leaderboard's rooms: each imports only what stands below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent / "leaderboard"
ORDER = (
    {"formatting", "workers"},
    {"data"},
    {"analysis"},
    {"charts"},
    {"columns"},
    {"board", "exports"},
    {"pages", "terminal"},
    {"site"},
    {"chart_files"},
)
"""Low to high. Of two modules on one floor neither may import the other, unless they are in one folder."""
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room(path):
    return path.relative_to(ROOT).with_suffix("").parts[0]


def floor(name):
    return next(number for number, names in enumerate(ORDER) if name in names)


def imported(path):
    """Names of what a file imports of the leaderboard, also in functions and under `if TYPE_CHECKING`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dlbench.leaderboard"):
            for alias in node.names:
                yield ".".join([*node.module.split(".")[2:], alias.name])


def modules():
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_room_imports_only_what_stands_below(path):
    here = room(path)
    for name in imported(path):
        there = name.split(".")[0]
        assert here == there or floor(there) < floor(here), f"{path.relative_to(ROOT)} must not import {name}"


def test_no_module_imports_itself_over_others():
    known = modules()
    arrows = {
        name: {module for one in imported(path) for module in (one, one.rpartition(".")[0]) if module in known}
        for name, path in known.items()
    }
    reached = {name: set(below) for name, below in arrows.items()}
    for _ in known:
        reached = {name: below.union(*(reached[one] for one in below)) for name, below in reached.items()}
    assert [name for name, below in reached.items() if name in below] == []
    assert "data.tracks" in reached["site"]  # the graph is not empty


def test_every_room_has_its_place_in_the_order():
    assert {room(path) for path in FILES} == set().union(*ORDER)
