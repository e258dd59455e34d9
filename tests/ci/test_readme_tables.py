"""The tables of the README are those of the public records."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("record", "budget"), [("nano", "0.5"), ("smollm2", "0.8667")])
def test_a_table_is_what_its_record_says(record, budget):
    command = [sys.executable, ROOT / "ci" / "results.py", ROOT / "leaderboard" / "records" / record, budget]
    printed = subprocess.check_output(command, text=True).splitlines()
    shown = (ROOT / "README.md").read_text().splitlines()
    assert len(printed) > 10
    for line in printed:
        if not line.startswith("| ---"):
            assert any(one.startswith(line.removesuffix(" |")) for one in shown), line
