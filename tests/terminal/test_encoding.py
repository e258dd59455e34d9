"""What the terminal's encoding lacks is replaced: no run ends at its own table."""

import codecs
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dlbench.registry import methods as registry
from dlbench.running import config as spec
from dlbench.terminal import encoding
from dlbench.terminal.encoding import plain, print_anything

ROOT = Path(__file__).parents[2]
SHOWN = "retained – 0.97 × ≥ † → … é ● █ ⠋ 中"


@pytest.mark.parametrize("name", ["ascii", "latin-1", "cp1252", "cp437", "iso8859-15", "utf-8"])
def test_everything_can_be_printed(name, monkeypatch):
    kept = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, encoding=name, errors="strict"))
    print_anything()
    print(SHOWN + "\ud800" + os.fsdecode(b"caf\xe9"), flush=True)
    text = kept.getvalue().decode(name)
    assert "retained" in text and "0.97" in text and "\\ud800" in text and "\\udce9" in text
    for character in SHOWN:  # what the encoding has stays as it is
        try:
            character.encode(name)
        except UnicodeEncodeError:
            assert plain(character) in text
        else:
            assert character in text


def test_the_replacements_are_plain():
    assert all(len(encoding.plain(c)) >= 1 and encoding.plain(c).isascii() for c in map(chr, range(0x20, 0x3000)))
    assert [encoding.plain(c) for c in "–×≥→é中"] == ["-", "x", ">=", "->", "e", "?"]


@pytest.mark.parametrize("name", ["ascii", "latin-1"])
def test_a_board_is_printed_on_a_plain_terminal(name):
    env = {**os.environ, "PYTHONIOENCODING": name, "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "dlbench", "board", str(ROOT / "leaderboard/records/nano"), "--text"]
    ran = subprocess.run(command, capture_output=True, env=env, timeout=120)
    assert ran.returncode == 0, ran.stderr.decode()
    text = ran.stdout.decode(name)
    assert "nano_summary" in text and "static_skip" in text and "?" not in text.replace("\\u", "")


def test_lists_and_help_are_printed_on_a_plain_terminal():
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    for words in (["list", "methods"], ["list", "tasks"], ["run", "--help"], ["run", "--budget", "²"]):
        ran = subprocess.run([sys.executable, "-m", "dlbench", *words], capture_output=True, env=env, timeout=120)
        assert b"Traceback" not in ran.stderr and codecs.decode(ran.stdout, "ascii") is not None


# ---- examples in messages


def examples():
    """NAME.PARAM=VALUE of every message and help text of the package."""
    for path in sorted(ROOT.glob("dlbench/**/*.py")):
        for found in re.findall(r"\b([a-z_]+)\.([a-z_]+)=([0-9a-z.]+)", path.read_text()):
            if found[0] in registry.names():
                yield path.name, *found


def test_examples_in_messages_name_parameters_that_there_are():
    known = list(examples())
    assert any(name == "config.py" for name, *_ in known)
    for _, method, parameter, value in known:
        assert parameter in [p.name for p in registry.describe(method).parameters]
        cls = registry.load(method)
        cls.from_params({parameter: json.loads(value) if value[0].isdigit() else value})
    with pytest.raises(spec.DlbenchError, match=r"such as static_exit\.share=0\.5$"):
        spec.parse_settings(["nonsense"])
