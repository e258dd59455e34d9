"""The scripts of ci/: each imports what exists and explains itself."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "ci").iterdir() if path.suffix in ("", ".py") and path.is_file())
PYTHON = [path for path in FILES if path.suffix == ".py"]
SHELL = [path for path in FILES if path.suffix == ""] + [ROOT / ".ci" / "run"]
NAMES = [path.name for path in FILES]
READ_BY_PEOPLE = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / ".github").rglob("*.yml")),
    *SHELL,
    *PYTHON,
    ROOT / "pyproject.toml",
]


def ids(path):
    return path.name


def test_there_are_scripts():
    assert len(PYTHON) >= 6 and len(SHELL) >= 8


@pytest.mark.parametrize("path", PYTHON, ids=ids)
def test_a_python_script_imports_what_exists(path):
    if path.name == "screenshots.py":
        pytest.importorskip("playwright")
    assert callable(runpy.run_path(str(path), run_name="imported")["main"])


@pytest.mark.parametrize("path", PYTHON, ids=ids)
def test_a_python_script_explains_itself(path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: {path.name}" in said and f"`ci/{path.name}" in said


@pytest.mark.parametrize("path", [*PYTHON, *SHELL], ids=ids)
def test_a_script_runs_by_its_name(path):
    assert os.access(path, os.X_OK)
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == f"#!/usr/bin/env {'python' if path.suffix else 'bash'}"


@pytest.mark.parametrize("path", SHELL, ids=ids)
def test_a_shell_script_parses(path):
    subprocess.run(["bash", "-n", str(path)], check=True)


@pytest.mark.parametrize("path", READ_BY_PEOPLE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_that_is_named_exists(path):
    if path.name == "CHANGELOG.md":
        return  # it tells of earlier names as well
    named = set(re.findall(r"(?<![\w./])ci/([a-z][\w.-]*\w)", path.read_text(encoding="utf-8")))
    assert sorted(named - set(NAMES) - {"constraints.txt", "test_seconds.json"}) == []


def test_pre_commit_runs_what_the_check_runs():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local" and {hook["language"] for hook in repository["hooks"]} == {"system"}
    hooks = [" ".join(hook["entry"].split()[:2]) for hook in repository["hooks"]]
    lint = (ROOT / "ci" / "lint").read_text(encoding="utf-8").splitlines()
    assert hooks == [" ".join(line.split()[:2]) for line in lint if line.startswith(("ruff", "ci/"))]


def test_ci_run_takes_its_command_from_the_readme():
    reader = re.search(r"command=\$\((.*)\)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    done = subprocess.run(["bash", "-c", reader[1]], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("python3 -m venv .venv-test && ") and "pytest" in done.stdout
    assert done.stdout.strip() in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
