"""A tampered submission is rejected with the code of what was done, also where its hashes were made to fit again."""

import json

import pytest
from tamperings import FORGED, UNSEALED, put

from dlbench.records.track import content_key
from dlbench.submission.faults import REMEDIES
from dlbench.submission.manifest import FILE
from dlbench.submission.validation import validate


def codes(folder, rules="consistent"):
    return validate(folder, rules=rules).faults.codes


def test_an_honest_submission_is_valid(packed):
    result = validate(packed, rules="consistent")
    assert result.passed, result.faults.faults
    assert len(result.manifest.rows) == 4


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_submission_is_rejected(what, tampering):
    code, edit = FORGED[what]
    edit(tampering)
    tampering.seal()
    found = codes(tampering.folder)
    assert code in found and "check-failed" not in found, found


@pytest.mark.parametrize("what", UNSEALED)
def test_a_damaged_submission_is_rejected(what, tampering):
    code, edit = UNSEALED[what]
    edit(tampering)
    found = codes(tampering.folder)
    assert code in found and "check-failed" not in found, found


OFFICIAL = {
    "cut-prompts": lambda t: t.record("bumpy", put("task", "truncated", value=1)),
    "hardware-missing": lambda t: t.record("bumpy", put("hardware", value=None)),
    "timing-missing": lambda t: t.lines("timing.jsonl", lambda a: a[1:]),
    "seed": lambda t: t.record("bumpy", put("run", "seed", value=7)),
}


@pytest.mark.parametrize("code", OFFICIAL)
def test_the_protocol_is_held(code, tampering):
    OFFICIAL[code](tampering)
    tampering.seal()
    assert code in codes(tampering.folder, "official")


BROKEN = {"not-official", "limited", "suite-incomplete", "control-missing", "budget-missing", "seeds-missing"}


def test_a_small_run_is_no_official_one(packed):
    """All that it lacks is said at once."""
    assert codes(packed, "official") == BROKEN


def test_every_code_has_been_seen():
    seen = {code for code, _ in (*FORGED.values(), *UNSEALED.values())} | set(OFFICIAL) | BROKEN
    assert set(REMEDIES) - seen == {"check-failed"}
    assert len(seen) >= 25


def test_a_key_cannot_be_kept(tampering):
    """Content that is forged to hash to another key needs that key in the record too, and then it is another row."""
    tampering.renamed("bumpy", lambda r, content: content.update(seed=3))
    tampering.seal()
    manifest_ = json.loads((tampering.folder / FILE).read_text())
    assert all(content_key(row_["content"]) == key for key, row_ in manifest_["rows"].items())
    assert codes(tampering.folder) == {"content-differs"}
