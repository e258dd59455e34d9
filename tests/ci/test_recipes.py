"""The recipes of CONTRIBUTING.md, followed as they stand there in a copy of the checkout."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^### (.+?)\n(.+?)(?=^### |\Z)", TEXT.partition("## Recipes")[2], re.MULTILINE | re.DOTALL))
NAMES = ("Add a method", "Add a family", "Add a task")
COPIED = ("dlbench", "methods", "leaderboard", "tests")


def blocks(recipe, *languages):
    """Return the code blocks of a recipe that are in one of some languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", RECIPES[recipe], re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def put(checkout, block):
    """Write a block to the file that its first line names, or add it as a row of what the line names."""
    first, _, text = block.partition("\n")
    path, table = re.fullmatch(r"# (\S+?)(?:: one more row of (\w+))?", first).groups()
    file = checkout / path
    if table is None:
        assert not file.exists(), f"{path} is there already"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block, encoding="utf-8")
        return
    before, start, after = re.split(rf"^({table}\b.*[{{(\[]\n)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    file.write_text(before + start + text + after, encoding="utf-8")


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout with `dlbench` and `python` on the path; what nothing writes to is linked."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "records"))
    (folder / "tasks").mkdir()
    for path in (*(ROOT / "tasks").iterdir(), ROOT / "pyproject.toml"):
        (folder / path.relative_to(ROOT)).symlink_to(path)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, call in (("python", ""), ("dlbench", " -m dlbench")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{call} "$@"\n')
        (programs / name).chmod(0o755)
    return folder


def follow(checkout, recipe):
    """Write the files of a recipe, run its commands, and return what they print."""
    for block in blocks(recipe, "python", "yaml"):
        put(checkout, block)
    (commands,) = blocks(recipe, "sh")
    path = os.pathsep.join([str(checkout.parent / "bin"), os.environ.get("PATH", "/usr/bin:/bin")])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(checkout), "COLUMNS": "200"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=checkout,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_every_recipe_is_followed():
    assert tuple(RECIPES) == NAMES
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'follow(checkout, "{name}")' in source for name in NAMES)


@pytest.mark.slow
def test_add_a_method(checkout):
    printed = follow(checkout, "Add a method")
    assert re.search(r"^[1-9]\d* passed", printed, re.MULTILINE)
    assert '"name":"middle_skip"' in (checkout / "build/middle_skip/records.jsonl").read_text().replace(": ", ":")


@pytest.mark.slow
def test_add_a_family(checkout):
    printed = follow(checkout, "Add a family")
    assert re.search(r"^[1-9]\d* passed", printed, re.MULTILINE)


@pytest.mark.slow
def test_add_a_task(checkout):
    printed = follow(checkout, "Add a task")
    assert "spell_out" in printed and "write numbers as words" in printed
    assert '"spell_out"' in (checkout / "build/spelling/records.jsonl").read_text()
