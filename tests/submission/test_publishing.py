"""From a badge to the board: what CI and maintainers run."""

import importlib.util
from pathlib import Path

import pytest

from dlbench.errors import DlbenchError
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record
from dlbench.submission.badge import badge, write_badge
from dlbench.submission.report import markdown
from dlbench.submission.validation import validate

CI = Path(__file__).parents[2] / "ci"


def script(name):
    spec = importlib.util.spec_from_file_location(name, CI / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_badge_gives_its_trust_to_its_own_submission_only(packed, tmp_path, monkeypatch):
    publish = script("publish")
    monkeypatch.setattr(publish, "RECORDS", tmp_path / "records")
    seal = validate(packed, rules="consistent").manifest.seal
    write_badge(tmp_path / "badge", badge(seal, "reproduced", "Ada"))
    write_badge(tmp_path / "other", badge("0" * 64, "reproduced", "Mallory"))
    publish.main(packed, "demo", "self-reported", False, tmp_path / "badge")
    published = list(read_lines(tmp_path / "records" / "demo" / "records.jsonl", Record))
    assert {r.trust for r in published} == {"reproduced"} and len(published) == 4
    with pytest.raises(DlbenchError, match="another submission"):
        publish.main(packed, "demo", "self-reported", False, tmp_path / "other")

    publish.withdraw(tmp_path / "records" / "demo", "it read references", [published[0].key])
    marked = list(read_lines(tmp_path / "records" / "demo" / "records.jsonl", Record))
    assert [r.withdrawn for r in marked] == ["it read references", None, None, None]


def test_the_report_of_a_pull_request(packed, tmp_path):
    """Faults with code and remedy, and exit code 1; of a valid one the rows beside full depth and the controls."""
    assert script("submission").main([packed], tmp_path / "report.md") == 1
    report = (tmp_path / "report.md").read_text()
    assert "| limited |" in report and "leave --limit away" in report
    valid = "\n".join(markdown(packed, validate(packed, rules="consistent")))
    (line,) = (one for one in valid.splitlines() if "bumpy" in one)
    assert "**Valid**" in valid and "[" in line
    assert "− full [95 %] | − random_skip [95 %]" in valid


def test_a_strangers_text_is_no_markup(tampering):
    tampering.manifest(lambda m: m.update(author="<img src=x> [a](http://b) | `c` @all"))
    tampering.seal()
    text = "\n".join(markdown(tampering.folder, validate(tampering.folder, rules="consistent")))
    assert "<img" not in text and "[a](http" not in text and " | `c`" not in text
