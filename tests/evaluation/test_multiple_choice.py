"""Multiple-choice tasks: a track of their own, only with routed prompts, corrected for chance."""

import json

import pytest
import small_model

from dlbench.cli import main
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("choices")
    small_model.save(root / "small")
    (root / "mirror" / "mmlu_all").mkdir(parents=True)
    for split in ("validation", "test"):
        rows = [
            {"question": f"{split} {i}", "subject": "a_b", "choices": ["w", "x", "y", "z"], "answer": (i * 7) % 4}
            for i in range(40)
        ]
        (root / "mirror" / "mmlu_all" / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return root


def line(place, out, *more):
    return ["run", "--model", str(place / "small"), "--data-dir", str(place / "mirror"), "--out", str(out),
            "--limit", "20", "--max-new-tokens", "3", *more]  # fmt: skip


@pytest.fixture(scope="module")
def finished(place):
    out = place / "out"
    methods = [word for m in ("static_skip", "random_skip", "oracle", "calm") for word in ("--method", m)]
    both = ["--task", "mmlu_all", "--task", "nano_summary"]
    assert main(line(place, out, *both, *methods, "--budget", "0.5", "--prompt", "routed")) == 0
    return out


def test_they_stand_in_a_track_of_their_own(finished):
    records = list(read_lines(finished / "records.jsonl", Record))
    weighed = [r for r in records if r.task.name == "mmlu_all"]
    assert {r.method.name for r in weighed} == {"full", "random_skip", "static_skip"}  # no oracle, nothing per token
    assert {r.run.prompt for r in weighed} == {"routed"} and {r.run.max_new_tokens for r in weighed} == {0}
    assert len({r.track for r in weighed}) == 1 and "loglikelihood" in weighed[0].track
    assert not {r.track for r in weighed} & {r.track for r in records if r.task.name == "nano_summary"}
    assert len(build_tracks(records)) == 2
    assert "mmlu_all" in (finished / "site" / "index.html").read_text()


def test_what_is_kept_is_corrected_for_chance(finished):
    full, *others = (r for r in read_lines(finished / "records.jsonl", Record) if r.task.name == "mmlu_all")
    assert full.task.chance == 0.25 and full.task.fit_split == "validation" and full.task.with_bos == 20
    assert full.task.signature.startswith("lm-eval") and "acc" in full.task.signature
    for record in others:
        assert record.quality and record.quality.full_mean == full.quality.mean
        if record.quality.full_mean <= 0.25:
            assert record.quality.retained is None
        elif record.quality.retained is not None:
            kept = (record.quality.mean - 0.25) / (record.quality.full_mean - 0.25)
            assert record.quality.retained == pytest.approx(kept)
        assert "repetition" not in record.quality.extra


def test_samples_say_what_ran(finished):
    full, *others = (r for r in read_lines(finished / "records.jsonl", Record) if r.task.name == "mmlu_all")
    samples = list(read_lines(finished / "samples" / f"{full.key}.jsonl", Sample))
    assert len(samples) == 20 and {s.output for s in samples} <= set("ABCD")
    assert all(s.layers == (4.0,) and s.tokens.generated == 0 and s.prompt_flops == 0 for s in samples)
    for record in others:
        rows = list(read_lines(finished / "samples" / f"{record.key}.jsonl", Sample))
        assert record.compute.layer_share == pytest.approx(sum(s.layers[0] for s in rows) / (20 * 4)) == 0.5
        by_hand = [a.flops.total / b.flops.total for a, b in zip(rows, samples, strict=True)]
        assert record.compute.flop_share_decode == record.compute.flop_share_total == pytest.approx(sum(by_hand) / 20)
        assert 0.4 < record.compute.flop_share_total < 0.7


def test_they_go_on_where_they_stopped(finished, place, monkeypatch):
    before = (finished / "records.jsonl").read_bytes()
    monkeypatch.setattr("dlbench.evaluation.generation.samples", lambda *_: pytest.fail("weighed what was there"))
    methods = [word for m in ("static_skip", "random_skip", "oracle", "calm") for word in ("--method", m)]
    both = ["--task", "mmlu_all", "--task", "nano_summary"]
    again = line(place, finished, *both, *methods, "--budget", "0.5", "--prompt", "routed", "--no-timing")
    assert main(again) == 0
    assert (finished / "records.jsonl").read_bytes() == before


def test_full_depth_prompts_are_refused(place, tmp_path, capsys):
    assert main(line(place, tmp_path / "out", "--task", "mmlu_all", "--method", "full")) == 2
    err = capsys.readouterr().err
    assert (
        "task 'mmlu_all' scores given answers by their likelihood" in err
        and "add --prompt routed" in err
        and err.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()
