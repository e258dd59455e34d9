"""docs/first-method.md, followed as it stands: from nothing to a row."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/first-method.md").read_text(encoding="utf-8")
# What `pip install -e FOLDER` does, without a new environment: the folder on the path, and its entry point.
INSTALL = """\
import sys, tomllib
from pathlib import Path
project = tomllib.loads(Path(sys.argv[1], "pyproject.toml").read_text())["project"]
info = Path(sys.argv[1], f"{project['name'].replace('-', '_')}-{project['version']}.dist-info")
info.mkdir()
(info / "METADATA").write_text(f"Metadata-Version: 2.1\\nName: {project['name']}\\nVersion: {project['version']}\\n")
points = project["entry-points"]["dlbench.methods"].items()
(info / "entry_points.txt").write_text("[dlbench.methods]\\n" + "".join(f"{name} = {at}\\n" for name, at in points))
"""


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def run(folder, commands):
    """Run commands in a folder, with `dlbench`, `python` and `pip` on the path; returns what they print."""
    path = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", "/usr/bin:/bin")])
    found = os.pathsep.join([str(ROOT), str(folder / "first_layers")])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": found, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.mark.slow
def test_from_nothing_to_a_row(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "install.py").write_text(INSTALL)
    calls = {"python": "", "dlbench": " -m dlbench", "pip": f" {tmp_path}/install.py"}
    for name, call in calls.items():
        taken = "shift 2; " if name == "pip" else ""  # `install -e`
        (programs / name).write_text(f'#!/bin/sh\n{taken}exec "{sys.executable}"{call} "$@"\n')
        (programs / name).chmod(0o755)
    make, check, test, run_it, check_router = blocks("sh")
    source, router = blocks("python")
    printed = run(tmp_path, make)
    assert "first_layers/first_layers/first_layers.py" in printed
    begins = run(tmp_path, check)  # the example that it starts with works
    assert "all 12 clauses hold" in begins
    path = tmp_path / source.partition("\n")[0].removeprefix("# ")
    assert path.is_file()
    path.write_text(source, encoding="utf-8")
    assert re.search(r"^1[0-9] passed", run(tmp_path, test), re.MULTILINE)
    (tmp_path / router.partition("\n")[0].removeprefix("# ")).write_text(router, encoding="utf-8")
    assert "all 12 clauses hold" in run(tmp_path, check_router)
    run(tmp_path, run_it)
    records = [json.loads(line) for line in (tmp_path / "first-out/records.jsonl").read_text().splitlines()]
    shares = {r["method"]["name"]: r["compute"]["layer_share"] for r in records if r["backbone"]["name"] == "nano"}
    assert abs(shares["first_layers"] - 0.5) < 0.15 and shares["full"] == 1.0
