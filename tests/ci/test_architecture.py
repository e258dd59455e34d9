"""docs/architecture.md names what exists, and every room is on its map."""

import importlib
import re
from pathlib import Path

import pytest
import test_imports

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = {"methods": ROOT / "methods", "leaderboard": ROOT / "leaderboard"}
MAP = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", TEXT, re.MULTILINE)
WALKS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[2:5]
TOP = {name.split(".")[0] for name, _ in MAP}
NAMES = sorted({name for name in re.findall(r"`([a-z_]\w*(?:\.\w+)+)`", TEXT) if name.split(".")[0] in TOP})


def places():
    """Yield every package of dlbench, and the modules that stand alone, by name."""
    for folder in (ROOT / "dlbench", *FOLDERS.values()):
        base = ROOT if folder.parent == ROOT and folder.name in FOLDERS else folder
        for file in folder.rglob("__init__.py"):
            if name := ".".join(file.parent.relative_to(base).parts):
                yield name
    yield from (path.stem for path in (ROOT / "dlbench").glob("*.py") if not path.stem.startswith("__"))


def resolve(name):
    """Return what a dotted name below dlbench leads to."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            thing = importlib.import_module(".".join(["dlbench", *parts[:length]]))
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("dlbench"):
                raise
            continue
        for attribute in parts[length:]:
            thing = getattr(thing, attribute)
        return thing
    raise ModuleNotFoundError(name)


def test_every_room_is_on_the_map():
    assert sorted(name for name, _ in MAP) == sorted(places())


def test_the_map_has_the_order_of_imports():
    names = [name for name, _ in MAP if "." not in name]
    assert names == [name for name in test_imports.ROOMS if name in names]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_named_exists(name):
    if name.endswith((".md", ".json", ".jsonl", ".py", ".yaml")):
        assert (ROOT / "docs" / name).exists() or name in ("records.jsonl",)
        return
    assert resolve(name) is not None


def test_the_walks_name_functions_in_numbered_steps():
    assert len(WALKS) == 3
    for walk in WALKS:
        steps = re.findall(r"^(\d+)\. ", walk, re.MULTILINE)
        assert [int(step) for step in steps] == list(range(1, len(steps) + 1)) and len(steps) >= 5
        assert sum(f"`{name}`" in walk for name in NAMES) >= 10


def test_a_name_that_does_not_exist_is_noticed():
    for name in ("engine.engine.Engine.prefil", "nowhere.thing"):
        with pytest.raises((AttributeError, ModuleNotFoundError)):
            resolve(name)
