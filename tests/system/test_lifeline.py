"""Processes that a run starts find the package that the run itself uses, whatever lies in the current folder."""

import json
import subprocess
import sys

import pytest

import dlbench

CHILD = "import dlbench, json; print(json.dumps([dlbench.__file__, dlbench.__version__]))"
PARENT = f"""
import subprocess
from dlbench.system.lifeline import python_command
subprocess.run(python_command("-c", {CHILD!r}), check=True)
"""


@pytest.mark.parametrize("package", [True, False], ids=["a package", "a folder"])
def test_a_folder_of_the_same_name_does_not_stand_for_the_installed_package(tmp_path, package):
    """Such as a checkout beside which somebody works who installed it from there."""
    (tmp_path / "dlbench").mkdir()
    if package:
        (tmp_path / "dlbench" / "__init__.py").write_text("raise ImportError('this is the wrong one')")
    command = [sys.executable, "-P", "-c", PARENT]  # as the installed command `dlbench`, which does not look here
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [dlbench.__file__, dlbench.__version__]


def test_a_process_that_looks_in_the_current_folder_has_children_that_do(tmp_path):
    (tmp_path / "mine.py").write_text("print('found')")
    parent = PARENT.replace(repr(CHILD), repr("import mine"))
    done = subprocess.run([sys.executable, "-c", parent], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "found\n"), done.stderr
