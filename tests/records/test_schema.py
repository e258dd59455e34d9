import json

import pytest
from pydantic import ValidationError

from dlbench.errors import DlbenchError, RecordError
from dlbench.records.schema import (
    Asked,
    CandidateScore,
    Record,
    Sample,
    SharedSources,
    Timing,
    Usage,
    read_lines,
    write_lines,
)

SHA = "ab" * 32
FLOPS = {"layers": 10, "attention": 2, "heads": 0, "kv": 1, "router": 0}
TOKENS = {"prompt": 7, "generated": 5}
RECORD = {
    "schema": "dlbench.record/1",
    "key": "0123456789abcdef",
    "track": "nano/1",
    "backbone": {
        "name": "nano",
        "family": "llama",
        "layers": 16,
        "dtype": "float32",
        "sha256": SHA,
        "base_sha256": SHA,
    },
    "method": {
        "name": "static_skip",
        "params": {"keep": 8, "layers": [0, 2], "soft": 0.5, "per": "token", "on": True, "none": None},
        "source_sha256": SHA,
        "deployable": True,
        "kind": "static",
        "knob": "keep",
        "scope": "static",
    },
    "task": {
        "name": "nano_summary",
        "version": "1",
        "metric": "rougeL",
        "n": 200,
        "truncated": 2,
        "begun": 200,
        "of": 250,
        "drawn": "sample",
        "sources": 57,
        "fit_split": "a fifth of test, not scored",
        "fit_overlap": 250,
        "signature": "rougeL: by hand",
        "chance": 0.25,
        "chat_template": SHA,
        "think_end_token": "</think>",
    },
    "run": {"budget": 0.5, "prompt": "full", "kv": "project", "seed": 0, "max_new_tokens": 64},
    "quality": {
        "mean": 0.6,
        "corpus": None,
        "full_mean": 0.8,
        "retained": 0.75,
        "retained_ci95": [0.7, 0.8],
        "extra": {"exact": 0.25},
    },
    "compute": {
        "layer_share": 0.5,
        "flop_share_decode": 0.52,
        "flop_share_total": 0.7,
        "flops": FLOPS,
        "executed_flops": 2**62,
        "tokens": TOKENS,
        "speculation": {"drafted": 9, "accepted": 7, "rounds": 3},
    },
    "status": "ok",
    "fit": {
        "seed": 1,
        "target": 0.5,
        "realised": 0.49,
        "learnt_from": 280,
        "tuned_on": 48,
        "tokens": 12_000,
        "learnt": ["order"],
    },
    "trust": "rerun",
    "notes": ["2 documents truncated"],
    "env": {"torch": "2.13.0"},
}
SAMPLE = {
    "id": "nano_summary/17",
    "output": "she said “no”\u2028\nand left",
    "score": 0.1,
    "scores": {"rouge1": 0.2},
    "answers": [[-1.5, True], [-3.25, False]],
    "layers": [16, 8.0, 7.5],
    "routes": [["3333", 1], ["3030", 2]],
    "pieces": ["she", " said", "</s>"],
    "truncated": False,
    "tokens": TOKENS,
    "flops": FLOPS,
    "prompt_flops": 40,
    "executed_flops": 60,
    "reread": False,
    "speculation": None,
    "tight": [[3, 0.0001]],
    "choice": None,
}
TIMING = {
    "schema": "dlbench.timing/1",
    "key": "0123456789abcdef",
    "method": "static_skip",
    "task": "nano_summary",
    "budget": 0.5,
    "batch_size": 16,
    "device": "cpu",
    "threads": 2,
    "decode_ms_per_token": 1.5,
    "ms_per_document": 70.0,
    "prefill_ms_per_document": 6.0,
    "speedup": 1.7,
    "spread": 0.05,
    "speedup_spread": 0.03,
    "repeats": 5,
    "kernels": "fused",
}
CANDIDATE = {"id": "nano_summary/17", "candidate": "skip-8", "layers": [0, 2], "share": 0.125, "score": 0.5}
ASKED = {
    "track": "nano/1",
    "id": "nano_summary/17",
    "prompt": "a\nsummary:",
    "references": ["b", "c"],
    "source": "0123456789abcdef",
}
SHARED = {"track": "nano/1", "sources": {"nano_summary/17": "0123456789abcdef", "nano_summary/18": "0123456789abcdef"}}
USAGE = {"key": "0123456789abcdef", "layers": [1.0, 0.5], "depths": [0, 3, 4]}


def changed(record, path, value):
    copy = json.loads(json.dumps(record))
    *parents, last = path.split(".")
    part = copy
    for parent in parents:
        part = part[parent]
    part[last] = value
    return copy


@pytest.fixture
def path(tmp_path):
    return tmp_path / "records.jsonl"


def read(path, model, *objects):
    path.write_text("".join(json.dumps(one) + "\n" for one in objects))
    return list(read_lines(path, model))


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (Record, RECORD),
        (Sample, SAMPLE),
        (Timing, TIMING),
        (CandidateScore, CANDIDATE),
        (Asked, ASKED),
        (Usage, USAGE),
        (SharedSources, SHARED),
    ],
)
def test_written_lines_read_back_and_are_always_the_same_bytes(path, model, example):
    items = read(path, model, example, example)
    write_lines(path, items)
    written = path.read_bytes()
    assert list(read_lines(path, model)) == items
    assert json.loads(written.splitlines()[0]) == example
    shuffled = dict(reversed(example.items()))
    write_lines(path, [model.model_validate(shuffled)] * 2)
    assert path.read_bytes() == written
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema", "dlbench.record/2"),
        ("key", "../../etc/passwd"),
        ("surprise", 1),
        ("backbone.layers", 0),
        ("backbone.layers", "16"),
        ("backbone.sha256", "ab"),
        ("method.name", "evil\u202egnp"),
        ("method.name", "x" * 201),
        ("method.deployable", 1),
        ("method.params", {"nested": {"a": 1}}),
        ("method.params", {"k": float("nan")}),
        ("method.params", {"k": [float("inf")]}),
        ("task.n", 1.5),
        ("task.truncated", -1),
        ("task.drawn", "most"),
        ("task.sources", 0),
        ("task.fit_overlap", -1),
        ("run.budget", 0),
        ("run.budget", 1.01),
        ("run.prompt", "half"),
        ("quality.mean", float("nan")),
        ("quality.mean", None),
        ("quality.full_mean", 0.0),
        ("quality.retained", None),
        ("quality.retained_ci95", [0.9, 0.8]),
        ("quality.retained_ci95", [0.9]),
        ("quality.extra", {"x": float("-inf")}),
        ("quality", None),
        ("compute", None),
        ("compute.layer_share", -0.1),
        ("compute.flops.kv", -1),
        ("compute.executed_flops", 1e18),
        ("compute.executed_flops", 10**25),
        ("status", "fine"),
        ("trust", "certified"),
        ("notes", ["\x1b[2J"]),
        ("notes", ["x"] * 65),
    ],
)
def test_bad_record_is_refused_with_file_line_and_field(path, field, value):
    with pytest.raises(RecordError) as refusal:
        read(path, Record, RECORD, changed(RECORD, field, value))
    message = str(refusal.value)
    assert message.startswith(f"{path}, line 2: ")
    assert field.split(".")[0] in message
    assert "\n" not in message


@pytest.mark.parametrize("routes", [[["30<", 1]], [["", 1]], [["33", 0]], [["4", 1]], [["3"]]])
def test_routes_are_digits_with_a_count(path, routes):
    with pytest.raises(RecordError, match="line 1: routes"):
        read(path, Sample, SAMPLE | {"routes": routes})


@pytest.mark.parametrize(
    ("model", "example", "field", "value"),
    [
        (Sample, SAMPLE, "pieces", ["x" * 1001]),
        (Usage, USAGE, "layers", [1.5]),
        (Usage, USAGE, "depths", [-1]),
        (Asked, ASKED, "references", ["x"] * 1001),
        (Asked, ASKED, "source", "the passage itself"),
        (SharedSources, SHARED, "sources", {"a": "the passage itself"}),
    ],
)
def test_what_goes_with_a_record_has_its_limits(path, model, example, field, value):
    with pytest.raises(RecordError, match=f"line 1: {field}"):
        read(path, model, changed(example, field, value))


def test_unreachable_record_may_lack_figures(path):
    bare = RECORD | {"status": "unreachable", "quality": None, "compute": None}
    assert read(path, Record, bare, RECORD | {"status": "unreachable"})[0].quality is None
    with pytest.raises(RecordError, match="come together"):
        read(path, Record, bare | {"quality": RECORD["quality"]})


def test_schema_must_be_stated_in_a_file_but_not_in_python(path):
    unstated = {name: value for name, value in RECORD.items() if name != "schema"}
    assert Record.model_validate(unstated).schema_ == "dlbench.record/1"
    with pytest.raises(RecordError, match="line 1: schema"):
        read(path, Record, unstated)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", None),
        (b"\n", "line 1"),
        (b"{", "line 1"),
        (b"[1]\n", "line 1"),
        (b'{"id": "\xff"}\n', "line 1"),
        (b"[" * 100_000 + b"\n", "line 1"),
        (b'{"id": "' + b"x" * (1 << 18), "longer than 131,072 bytes"),
    ],
)
def test_broken_files(path, content, complaint):
    path.write_bytes(content)
    if complaint is None:
        assert list(read_lines(path, CandidateScore)) == []
        return
    with pytest.raises(RecordError, match=complaint):
        list(read_lines(path, CandidateScore))


def test_times_of_before_there_were_fused_layers_are_stock(path):
    (old,) = read(path, Timing, {name: value for name, value in TIMING.items() if name != "kernels"})
    assert old.kernels == "stock"


def test_too_many_lines_are_refused(path, monkeypatch):
    monkeypatch.setattr(CandidateScore, "max_lines", 3)
    with pytest.raises(RecordError, match="more than 3 lines"):
        read(path, CandidateScore, *[CANDIDATE] * 4)


def test_missing_file_and_unwritable_place_are_errors_for_people(path):
    with pytest.raises(RecordError, match="No such file") as refusal:
        list(read_lines(path, Record))
    assert isinstance(refusal.value, DlbenchError)
    assert refusal.value.exit_code == 2
    path.write_text("a file, not a folder")
    with pytest.raises(RecordError):
        write_lines(path / "records.jsonl", [])


def test_failed_write_leaves_the_old_file(path):
    path.write_text("old")

    def interrupted():
        yield CandidateScore.model_validate(CANDIDATE)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lines(path, interrupted())
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_records_do_not_change_and_refuse_nan_in_python_too():
    record = Record.model_validate(RECORD)
    with pytest.raises(ValidationError):
        record.status = "unreachable"
    with pytest.raises(ValidationError):
        CandidateScore(id="a", candidate="b", layers=[1], share=0.5, score=float("nan"))
    assert record.compute.flops.total == 13


def test_fields_that_came_later_are_written_where_they_say_something(path):
    """Records of before keep their bytes, and those of now lose nothing."""
    backbone = {**RECORD["backbone"], "quantization": "gguf Q4_1", "adapter_of": "base"}
    grown = {**RECORD, "backbone": backbone, "run": {**RECORD["run"], "state": "hold"}}
    (item,) = read(path, Record, grown)
    write_lines(path, [item])
    assert json.loads(path.read_text()) == grown
