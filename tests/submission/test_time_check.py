"""Rows are timed again beside full depth where the machine is the claim's, and the ratios are compared."""

import json

import pytest
import torch

from dlbench.cli import main
from dlbench.evaluation.timing import TOKENS
from dlbench.records.schema import Hardware, Timing
from dlbench.submission import time_check
from dlbench.submission.badge import read_badge
from dlbench.submission.validation import validate
from dlbench.submission.verification import Verification, reproduced
from dlbench.system.hardware import hardware


def timing(speedup=1.0, key="a" * 64, batch=1, **more):
    facts = {
        "key": key, "method": "calm", "task": "t", "budget": 0.5, "batch_size": batch, "device": "cpu", "threads": 1,
        "decode_ms_per_token": 1.0, "ms_per_document": 1.0, "prefill_ms_per_document": 1.0, "speedup": speedup,
        "spread": 0.0, "repeats": 2, "hardware": Hardware(**hardware()), "others_busy": 0.0,
    }  # fmt: skip
    return Timing.model_validate({**facts, **more})


@pytest.mark.parametrize(
    ("claimed", "measured", "more", "finding", "far_off"),
    [
        (2.0, 1.7, {}, "", False),
        (1.7, 2.0, {}, "", False),
        (2.0, 1.5, {}, "faster than it is here", False),
        (2.0, 0.9, {}, "faster than it is here", True),
        (0.5, 2.0, {}, "slower than it is here", False),
        (9.0, 1.0, {"others_busy": 0.4}, "not judged: other programs used 40% of the processors", False),
        (9.0, 1.0, {"kernels": "fused"}, "not judged: stock layers are claimed, fused ones ran", False),
    ],
)
def test_a_ratio_is_held_against_the_claim(claimed, measured, more, finding, far_off):
    check = time_check.judged(timing(claimed, batch=16), timing(measured, **more))
    assert (check.batch_size, check.claimed, check.measured) == (16, claimed, measured)
    assert (check.finding, check.far_off) == (finding, far_off)


MINE = hardware()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, ""),
        ({"hardware": Hardware(**{**MINE, "memory_bytes": 1, "system": "another"})}, ""),
        ({"hardware": Hardware(**{**MINE, "processor": "Z80"})}, "they are of another machine (Z80"),
        ({"hardware": Hardware(**{**MINE, "gpu": "H200"})}, "they are of another machine (H200"),
        ({"hardware": None}, "does not name the machine"),
        ({"threads": 5000}, "taken with 5000 threads, more than this machine has processors"),
    ],
)
def test_times_of_another_machine_are_not_compared(more, said):
    reason = time_check.other_machine(timing(**more), "cpu")
    assert said in reason and bool(said) == bool(reason)


@pytest.fixture
def faked(monkeypatch):
    """What was to be timed; each row has the ratio that `ratios` has for its method."""
    asked, ratios = [], {}

    def attempt(items, batch, *, routed, task):
        asked.append((batch, routed, task, torch.get_num_threads(), items))
        return [timing(ratios.get(i.facts["name"], 1.0), i.facts["key"], batch) for i in items]

    monkeypatch.setattr(time_check, "attempt", attempt)
    return asked, ratios


def verification(folder, model, said):
    result = validate(folder, rules="consistent")
    assert result.passed, result.faults.faults
    return Verification(result.submission, 1, "", [str(model)], "cpu", 1, note=said.append)


def test_every_row_is_timed_beside_full_depth_at_the_claims_batch_sizes(packed, faked, monkeypatch):
    monkeypatch.setattr("dlbench.submission.verification.audit", lambda cases: iter(()))
    asked, ratios = faked
    ratios.update(random_skip=0.7, bumpy=0.4)
    work = verification(packed, packed.parent / "model", [])
    rows = work.run()
    assert [(batch, routed, task, threads) for batch, routed, task, threads, _ in asked] == [
        (1, False, "nano_translate", 1),
        (16, False, "nano_translate", 1),
    ]
    items = asked[0][-1]
    assert items[0].facts["name"] == "full" and {i.method is None for i in items[1:]} == {False}
    assert {i.facts["key"] for i in items} == {r.key for r in work.submission.records}
    for item in items:
        assert len(item.prompts) == 16 == len({p.id for p in item.prompts})  # six documents, some of them again
        assert all(p.limit <= TOKENS for p in item.prompts) and list(item.limits) == [8] * 16
        assert not item.engine.runtime.metered
    found = {row.method: {time.batch_size: (time.finding, time.far_off) for time in row.times} for row in rows}
    assert found == {
        "full": {},
        "random_skip": dict.fromkeys((1, 16), ("faster than it is here", False)),
        "bumpy": dict.fromkeys((1, 16), ("faster than it is here", True)),
        "hidden_router": dict.fromkeys((1, 16), ("", False)),
    }
    assert not reproduced(rows)
    assert work.badge(rows, "Ada", maintainer=True).trust == "validated"
    assert reproduced([row for row in rows if row.method != "bumpy"])


def test_a_batch_that_does_not_fit_is_said_and_left_out(packed, monkeypatch):
    monkeypatch.setattr("dlbench.submission.verification.audit", lambda cases: iter(()))
    monkeypatch.setattr(time_check, "attempt", lambda *_, **__: None)
    rows = (work := verification(packed, packed.parent / "model", said := [])).run()
    assert all(row.times == () for row in rows) and reproduced(rows)
    assert work.timing and sum("no times at batch 16, which does not fit" in line for line in said) == 1


def test_times_of_another_processor_leave_the_rows_reproduced(tampering, packed, faked, monkeypatch):
    monkeypatch.setattr("dlbench.submission.verification.audit", lambda cases: iter(()))

    def elsewhere(lines):
        for line in lines:
            line["hardware"]["processor"] = "Z80"

    tampering.lines("timing.jsonl", elsewhere)
    tampering.manifest(lambda content: content["hardware"].update(processor="Z80"))
    tampering.seal()
    rows = verification(tampering.folder, packed.parent / "model", said := []).run()
    assert faked[0] == [] and reproduced(rows)
    (line,) = [line for line in said if "times are not compared" in line]
    assert line.startswith("nano_translate: ") and "another machine (Z80" in line


def test_the_command_prints_times_and_writes_them_into_the_badge(packed, tmp_path, capsys, monkeypatch):
    """Nothing is faked: the claimed ratios are made up, so that only their place is looked at."""
    monkeypatch.setattr("dlbench.submission.verification.audit", lambda cases: iter(()))
    monkeypatch.setattr(time_check, "FAR", 1e9)
    path = tmp_path / "badge"
    line = ["verify", str(packed), "--documents", "1", "--model", str(packed.parent / "model"), "--rules", "consistent"]
    assert main([*line, "--badge", str(path)]) == 0
    said = capsys.readouterr().out
    rows = [row for row in read_badge(path).rows if row.method != "full"]
    assert len(rows) == 3 and all([time.batch_size for time in row.times] == [1, 16] for row in rows)
    for row in rows:
        for time in row.times:
            assert time.measured > 0 and time.claimed == 1.0
            assert f"    batch {time.batch_size}: {time.measured:.2f} times full's speed, 1.00 claimed" in said
    assert json.loads(path.read_text())["rows"]
