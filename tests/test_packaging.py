"""An editable install hides what a wheel forgets, so the wheel is built, unpacked and run."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAPPED = ("dlbench", "methods", "tasks", "leaderboard")
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
# The tests run in an environment with an editable install, whose finder would help out where the wheel fails.
ALONE = (
    "import runpy, sys\n"
    "sys.meta_path = [f for f in sys.meta_path if not getattr(f, '__module__', '').startswith('__editable__')]\n"
    "import dlbench.methods, dlbench.tasks.nano, dlbench.leaderboard\n"
    "print(dlbench.__file__, file=sys.stderr)\n"
    "sys.argv = ['dlbench', *sys.argv[1:]]\n"
    "runpy.run_module('dlbench', run_name='__main__')\n"
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout, so that building leaves nothing behind in the real one."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in MAPPED:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    """The wheel of the checkout, unpacked."""
    subprocess.run([sys.executable, "-c", BUILD], cwd=checkout, check=True, capture_output=True)
    (built,) = (checkout / "dist").glob("*.whl")
    unpacked = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(unpacked)
    return unpacked


def run(cwd, wheel, *arguments):
    return subprocess.run(
        [sys.executable, "-c", ALONE, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(wheel), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )


# What the public board shows belongs to the repository, not to an installation.
PUBLIC = ("leaderboard/records", "leaderboard/submissions", "leaderboard/board.png", "leaderboard/index.json")


def test_the_wheel_forgets_nothing(checkout, wheel):
    there = {str(p.relative_to(wheel)) for p in wheel.rglob("*") if p.is_file()}
    for name in MAPPED:
        for path in (checkout / name).rglob("*"):
            packed = Path("dlbench", *path.relative_to(checkout / name).parts)
            if name != "dlbench":
                packed = Path("dlbench", *path.relative_to(checkout).parts)
            if path.is_file() and not str(path.relative_to(checkout)).startswith(PUBLIC):
                assert str(packed) in there, f"pyproject.toml declares no package data that takes {packed}"


def test_the_wheel_runs_from_elsewhere(wheel, tmp_path):
    done = run(tmp_path, wheel, "list", "methods")
    assert "full" in done.stdout and str(wheel) in done.stderr


def test_the_wheel_does_not_break_a_checkout(checkout, wheel):
    done = run(checkout, wheel, "list", "tasks")
    assert "nano_math" in done.stdout and str(checkout) in done.stderr
