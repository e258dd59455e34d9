"""The recipes of CONTRIBUTING.md, followed as they stand there in a copy of the checkout."""

import json
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
NAMES = (
    "Add a method",
    "Add a family",
    "Add a task",
    "Add a metric",
    "Add a board column",
    "Add a KV policy",
)
COPIED = ("dlbench", "methods", "tasks", "leaderboard", "tests", "ci")


def blocks(recipe, *languages):
    """Return the code blocks of a recipe that are in one of some languages."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", RECIPES[recipe], re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def put(checkout, block):
    """Write a block to the file that its first line names, or add it to the end of that file or of a table in it."""
    first, _, text = block.partition("\n")
    path, place, table = re.fullmatch(r"# (\S+?)(: at the end(?: of (\w+))?)?", first).groups()
    file = checkout / path
    if place is None:
        assert not file.exists(), f"{path} is there already"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block, encoding="utf-8")
        return
    known = file.read_text(encoding="utf-8")
    start = known.index(f"\n{table}") if table else 0
    end = re.compile(r"^[)}\]]", re.MULTILINE).search(known, start).start() if table else len(known)
    file.write_text(known[:end] + text + known[end:], encoding="utf-8")


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout with `dlbench` and `python` on the path."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name)  # with what Python compiled, which stays valid
    (folder / "build").mkdir()
    shutil.copy(ROOT / "pyproject.toml", folder)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, call in (("python", ""), ("dlbench", " -m dlbench")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{call} "$@"\n')
        (programs / name).chmod(0o755)
    return folder


def run(checkout, commands):
    """Run commands in the copy and return what they print."""
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


def follow(checkout, recipe):
    """Write the files of a recipe, run its commands, and return what they print."""
    for block in blocks(recipe, "python", "yaml"):
        put(checkout, block)
    (commands,) = blocks(recipe, "sh")
    return run(checkout, commands)


def outputs(run_folder, method):
    """Return the texts of a method by document, and check the policy of its record."""
    records = [json.loads(line) for line in (run_folder / "records.jsonl").read_text().splitlines()]
    (record,) = [one for one in records if one["method"]["name"] == method]
    assert record["run"]["kv"] == "project_once"
    samples = (run_folder / "samples" / f"{record['key']}.jsonl").read_text().splitlines()
    return {one["id"]: one["output"] for one in map(json.loads, samples)}


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


@pytest.mark.slow
def test_add_a_metric(checkout):
    follow(checkout, "Add a metric")
    assert '"agreement"' in (checkout / "build/agreement/records.jsonl").read_text()
    listed = run(checkout, "dlbench run --help")
    assert "agreement" in listed
    run(checkout, "python -m pytest -q tests/registry/test_moved_code.py -k metrics")


@pytest.mark.slow
def test_add_a_board_column(checkout):
    printed = follow(checkout, "Add a board column")
    assert re.search(r"tokens", printed)
    site = checkout / "build" / "site"
    assert "New tokens per document" in (site / "nano-math.html").read_text(encoding="utf-8")
    assert "new_tokens" in (site / "records.csv").read_text(encoding="utf-8").partition("\n")[0]
    for board in (site / "board.json", checkout / "build" / "index.json"):
        assert '"new_tokens"' in board.read_text(encoding="utf-8")


@pytest.mark.slow
def test_add_a_kv_policy(checkout):
    follow(checkout, "Add a KV policy")
    texts = [outputs(checkout / "build" / name, "skip_some") for name in ("one_by_one", "together")]
    assert texts[0] == texts[1] and len(texts[0]) == 6
    assert "project_once" in run(checkout, "dlbench run --help")
