"""`ci/moved_code.py`: an edited file keeps the hash that it counts by."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from dlbench.registry import source_file
from dlbench.registry.moved_code import MOVED

ROOT = Path(__file__).parents[2]
SCRIPT = SimpleNamespace(**runpy.run_path(str(ROOT / "ci" / "moved_code.py")))
PATH = "tasks/metrics.py"
LABEL = f"dlbench/{PATH}"


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """A checkout in which one file has a further function."""
    file = tmp_path / PATH
    file.parent.mkdir()
    file.write_text((ROOT / PATH).read_text(encoding="utf-8") + "\n\ndef further():\n    return 1\n", encoding="utf-8")
    monkeypatch.setitem(SCRIPT.renewed.__globals__, "ROOT", tmp_path)
    return file


def test_the_table_is_written_as_it_stands():
    assert SCRIPT.written(MOVED) in SCRIPT.TABLE.read_text(encoding="utf-8")


def test_an_edited_file_counts_as_before(edited, monkeypatch):
    before = source_file.read(ROOT / PATH).sha256
    monkeypatch.setitem(SCRIPT.renewed.__globals__, "MOVED", {(LABEL, before): [(LABEL, "0" * 64)]})
    assert SCRIPT.renewed([PATH]) == {(LABEL, source_file.read(edited).sha256): [(LABEL, "0" * 64)]}


def test_a_file_without_a_row_counts_as_in_the_last_commit(edited, monkeypatch):
    monkeypatch.setitem(SCRIPT.renewed.__globals__, "MOVED", {})
    monkeypatch.setitem(SCRIPT.renewed.__globals__, "committed_sha256", lambda path: "1" * 64)
    assert SCRIPT.renewed([PATH]) == {(LABEL, source_file.read(edited).sha256): [(LABEL, "1" * 64)]}


def test_a_file_as_it_was_needs_no_row(monkeypatch):
    before = source_file.read(ROOT / PATH).sha256
    monkeypatch.setitem(SCRIPT.renewed.__globals__, "MOVED", {(LABEL, "2" * 64): [(LABEL, before)]})
    assert SCRIPT.renewed([PATH]) == {}


def test_a_module_that_counts_by_itself_has_a_longer_label(monkeypatch):
    label = "dlbench/prompting/teacher_forcing/teacher_forcing.py"
    monkeypatch.setitem(SCRIPT.label_of.__globals__, "MOVED", {(label, "3" * 64): []})
    assert SCRIPT.label_of("dlbench/prompting/teacher_forcing.py") == label
    assert SCRIPT.label_of("methods/calm.py") == "dlbench/methods/calm.py"
    assert SCRIPT.label_of("dlbench/method/view.py") == "dlbench/method/view.py"
