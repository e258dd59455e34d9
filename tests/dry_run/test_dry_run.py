"""`--dry-run`: what it says beforehand, against what the run then did; and what it refuses."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import small_model

from dlbench.cli import main
from dlbench.dry_run.few_documents import DocumentUse, FewDocuments
from dlbench.forecast import needs
from dlbench.forecast.decoding import Lengths, StepCost, wave_seconds
from dlbench.models.batch_size import row_bytes
from dlbench.models.loading import load
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample
from dlbench.running import budgets


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of four layers and nano's tokenizer."""
    return small_model.save(tmp_path_factory.mktemp("models") / "tiny")


def command(tiny: Path, out: Path, *more: str) -> list[str]:
    return ["run", "--model", str(tiny), "--task", "nano_summary", "--max-new-tokens", "12", "--budget", "0.5",
            "--processes", "1", "--no-timing", "--progress", "quiet", "--out", str(out), *more]  # fmt: skip


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--dry-run", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def stages(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in plan["stages"]}


def test_work_that_is_known_is_foretold_exactly_and_what_is_there_is_reused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The four documents are those that the probe decodes, under the two settings that it decodes them with."""
    out = tmp_path / "out"
    line = command(tiny, out, "--limit", "4", "--method", "full", "--method", "unified_skip")
    before = planned(capsys, *line)
    assert not out.exists()
    used = time.process_time()
    assert main(line) == 0
    used = time.process_time() - used
    records = list(read_lines(out / "records.jsonl", Record))
    files = [out / "samples" / f"{record.key}.jsonl" for record in records]
    samples = [list(read_lines(path, Sample)) for path in files if path.read_text()]
    (job,) = before["jobs"]
    assert (
        (job["rows"], job["samples"], job["reused_samples"]) == (2, 8, 0) == (len(records), sum(map(len, samples)), 0)
    )
    decode = stages(before)["decode"]
    written = sum(sample.tokens.generated for of_row in samples for sample in of_row)
    assert decode["tokens"] == written + sum(sample.tokens.prompt for sample in samples[0])
    flops = sum(sample.flops.total for of_row in samples for sample in of_row)
    assert decode["flops"] == flops + sum(sample.prompt_flops for sample in samples[0])
    busy = before["cpu_seconds"] / before["seconds"]
    foretold = busy * sum(stage["seconds"] for name, stage in stages(before).items() if name != "start")
    assert used / 30 < foretold < 30 * used  # of a run of a second, much of which is no decoding
    on_disk = sum(path.stat().st_size for path in files)
    assert on_disk < before["disk_bytes"] < 10_000_000
    after = planned(capsys, *line)
    assert after["jobs"][0]["reused_samples"] == 8 and "decode" not in stages(after)
    more = planned(capsys, *line[:-6], "--limit", "6", *line[-4:])
    assert (more["jobs"][0]["samples"], more["jobs"][0]["reused_samples"]) == (12, 8)


def test_fits_that_are_missing_are_foretold(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = command(
        tiny, tmp_path / "out", "--limit", "4", "--method", "short_gpt", "--method", "calm", "--method", "oracle"
    )
    plan = planned(capsys, *line)
    assert [fit["fit"].partition(" on ")[0] for fit in plan["fits"]] == [
        "short_gpt",
        "calm",
    ]  # a closed form, and a knob
    assert all(fit["tokens"] > 0 < fit["flops"] and fit["seconds"] is not None for fit in plan["fits"])
    fits = stages(plan)["fits"]
    assert fits["tokens"] == sum(fit["tokens"] for fit in plan["fits"])
    (job,) = plan["jobs"]
    assert job["rows"] == 3 and job["settings"] > job["rows"]  # the oracle's candidates
    assert main([*line, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "calm on nano_summary for 0.5: " in said and "fits: 2 to make; 0 rows have theirs" in said


def test_what_does_not_fit_is_refused_in_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [*command(tiny, tmp_path / "out", "--limit", "2", "--method", "full"), "--dry-run"]
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        assert main(line) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "MB, and 1 kB are free there: give a folder elsewhere" in said
    with monkeypatch.context() as little:
        little.setattr("dlbench.dry_run.plan.free_bytes", lambda *_: 1000)
        assert main(line) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"loading {tiny} needs" in said and "1 kB are free" in said
    with monkeypatch.context() as little:
        little.setattr(needs, "highest_bytes", lambda _: 1 << 60)
        assert main(line) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the run needs 1.15e+06 TB of memory" in said
    assert main([*line[:-1], "--json"]) == 2
    assert "--json is for --dry-run" in capsys.readouterr().err


def test_memory_of_weights_and_waves(tiny: Path) -> None:
    backbone = load(str(tiny))
    parameters = sum(one.numel() for one in backbone.model.parameters())
    assert needs.weights_bytes(tiny, "float32") == pytest.approx(4 * parameters, rel=0.1)
    assert needs.weights_bytes(tiny, "bfloat16") == needs.weights_bytes(tiny, "float32") // 2
    row = row_bytes(backbone, 20, 12, backbone.depth)
    assert needs.wave_bytes(backbone, 20, 12, rows=5, slots=8) == 5 * row
    waiting = needs.wave_bytes(backbone, 20, 12, rows=10, slots=8) - 8 * row
    assert waiting == 2 * 20 * backbone.depth * backbone.cache_bytes
    assert [needs.size(count) for count in (999, 1500, 2.5e9)] == ["999 bytes", "1.5 kB", "2.5 GB"]


def test_a_wave_lasts_until_its_longest_text_ends_or_its_slots_have_written_all() -> None:
    cost, lengths = StepCost(fixed=1.0, row=0.1), Lengths(mean=10, longest=20)
    assert cost.step(5) == 1.5 and cost.scaled(0.5) == StepCost(0.5, 0.05)
    assert wave_seconds(cost, lengths, rows=0, slots=4) == 0
    assert wave_seconds(cost, lengths, rows=1, slots=4) == 10 + 1
    assert wave_seconds(cost, lengths, rows=4, slots=4) == 20 + 4
    assert wave_seconds(cost, lengths, rows=16, slots=4) == 40 + 16


def test_between_two_shares_of_the_layers_documents_are_between() -> None:
    low, high = DocumentUse(Lengths(20, 30), 100, 8, 1), DocumentUse(Lengths(10, 20), 300, 4, 2)
    few = FewDocuments({0.5: low, 1.0: high}, prompt_flops=7)
    assert few.at(0.25) == low and few.at(1.0) == high
    assert few.at(0.75) == DocumentUse(Lengths(15, 25), 200, 6, 1.5)


def test_budgets_that_a_run_has_chosen_are_those_of_its_plan(tmp_path: Path) -> None:
    assert budgets.chosen_before(tmp_path) == {}
    content = {"budgets": [{"backbone": "m", "sha256": "1a", "layers": 4, "budgets": [0.25, 0.5]}]}
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert budgets.chosen_before(tmp_path) == {"1a": (0.25, 0.5)}
    (tmp_path / "run.json").write_text('{"budgets": [3]}')
    assert budgets.chosen_before(tmp_path) == {}
