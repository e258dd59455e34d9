"""Results as a Hugging Face data set folder, loaded by `datasets` without a network."""

import json

import pytest
from record_factory import synthetic_run

import dlbench
from dlbench import cli
from dlbench.errors import DlbenchError


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    made = synthetic_run(documents=12, tasks=["nano_summary", "nano_math"])
    return made, made.write(tmp_path_factory.mktemp("run") / "run")


def loaded(folder, name, tmp_path):
    from datasets import load_dataset

    return load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))


def test_records_and_samples_are_loaded_offline(run, tmp_path):
    made, folder = run
    results = dlbench.load(folder)
    data = results.to_dataset(tmp_path / "data")
    rows = loaded(data, "records", tmp_path)
    frame = results.frame()
    assert rows.column_names == list(frame.columns) and len(rows) == len(frame) == len(made.records)
    assert {row["key"]: row["retained"] for row in rows} == dict(zip(frame["key"], frame["retained"], strict=True))
    samples = loaded(data, "samples", tmp_path)
    wanted = {(key, one.id): one for key, several in made.samples.items() for one in several}
    assert len(samples) == len(wanted)
    depths = {one.key: one.backbone.layers for one in made.records}
    for row in samples:
        sample = wanted[row["key"], row["id"]]
        assert (row["output"], row["score"], row["layers"]) == (sample.output, sample.score, list(sample.layers))
        assert json.loads(row["scores"]) == dict(sample.scores)
        assert (row["prompt_tokens"], row["tokens"]) == (sample.tokens.prompt, sample.tokens.generated)
        share = sum(sample.layers) / len(sample.layers) / depths[row["key"]] if sample.layers else None
        assert row["layer_share"] == share
    assert {row["key"]: (row["task"], row["method"]) for row in samples} == {
        one.record.key: (one.task, one.label) for one in results if one.record.key in made.samples
    }


def test_the_card_is_of_these_results(run, tmp_path):
    import yaml

    _, folder = run
    results = dlbench.load(folder)
    text = (results.to_dataset(tmp_path / "data") / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert [one["config_name"] for one in yaml.safe_load(head)["configs"]] == ["records", "samples"]
    assert f"{len(results)} records" in body and results.headlines()[0] in body


def test_published_records_have_no_samples_and_a_folder_in_use_is_refused(run, tmp_path):
    from datasets import get_dataset_config_names

    _, folder = run
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "records.jsonl").write_bytes((folder / "records.jsonl").read_bytes())
    data = tmp_path / "data"
    assert cli.main(["board", str(bare), "--dataset", str(data)]) == 0
    assert get_dataset_config_names(str(data)) == ["records"] and not (data / "samples.parquet").exists()
    assert len(loaded(data, "records", tmp_path)) == len(dlbench.load(bare))
    with pytest.raises(DlbenchError, match="is there already: name a new folder"):
        dlbench.load(bare).to_dataset(data)
