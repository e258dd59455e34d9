"""`dlbench.run`, `dlbench.load` and `Results`, on a tiny model that is loaded already."""

import dataclasses
import inspect
import json
import shutil
import subprocess
import sys

import pytest
import small_model
import torch
from bumpy import Bumpy
from record_factory import record
from transformers import AutoModelForCausalLM, AutoTokenizer

import dlbench
from dlbench.errors import DlbenchError
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, write_lines
from dlbench.running.config import RunSpec


def state(model):
    """All that a run could change in a loaded model."""
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    return weights, modes, [p.requires_grad for p in model.parameters()], repr(model), model.config.to_dict()


def unchanged(model, before):
    weights, *rest = before
    now, *others = state(model)
    return others == rest and now.keys() == weights.keys() and all(torch.equal(now[k], weights[k]) for k in weights)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = small_model.save(tmp_path_factory.mktemp("models") / "tiny-llama")
    return AutoModelForCausalLM.from_pretrained(folder).train(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def results(loaded, tmp_path_factory):
    """One run that everything here looks at; also asserts that the model is left as it was."""
    model, tokenizer = loaded
    before = state(model)
    made = dlbench.run(
        model,
        ["nano_translate", "nano_summary"],
        ["static_skip", Bumpy, "hidden_router"],
        0.5,
        tokenizer=tokenizer,
        settings={"hidden_router": {"steps": 1, "fixed_input": False}},
        limit=6,
        max_new_tokens=6,
        fit_tokens=300,
        out=tmp_path_factory.mktemp("run") / "out",
        timing=False,
        progress="quiet",
        processes=1,
    )
    assert unchanged(model, before)
    return made


def test_the_results_are_the_records(results):
    (out,) = results.run_dirs
    written = {record.key for record in read_lines(out / "records.jsonl", Record)}
    assert {record.key for record in results.records} == written
    assert len(results) == len(written) == 2 * 4
    assert {row.record.backbone.name for row in results} == {"tiny-llama"}


def test_the_frame_has_a_typed_row_per_record(results):
    frame = results.frame()
    assert sorted(frame["key"]) == sorted(record.key for record in results.records)
    kinds = frame.dtypes.astype(str)
    wanted = {"layer_share": "Float64", "documents": "Int64", "deployable": "boolean", "label": "string"}
    assert {name: kinds[name] for name in wanted} == wanted
    by_key = {record.key: record for record in results.records}
    for _, line in frame.iterrows():
        assert line["layer_share"] == by_key[line["key"]].compute.layer_share


def test_parquet_holds_the_frame(results, tmp_path):
    import pandas

    assert pandas.read_parquet(results.to_parquet(tmp_path / "rows.parquet")).equals(results.frame())


def test_rows_are_selected(results):
    assert [row.task for row in results.select("static_skip", 0.5)] == ["nano_summary", "nano_translate"]
    assert results.row("static_skip", task="nano_summary").budget == 0.5
    with pytest.raises(DlbenchError, match="2 rows are of 'static_skip'"):
        results.row("static_skip")
    with pytest.raises(DlbenchError, match=r"no row is of 'calm'.*static_skip on nano_summary"):
        results.row("calm")


def test_variants_are_selected_by_their_labels(tmp_path):
    rows = [record("hidden_router", method={"params": {"fixed_input": fixed}}) for fixed in (False, True)]
    write_lines(tmp_path / "records.jsonl", rows)
    results = dlbench.load(tmp_path)
    labels = {row.label for row in results.select("hidden_router")}
    assert labels == {"hidden_router", "hidden_router · fixed_input"}
    assert results.row("hidden_router").label == "hidden_router"
    for typed in ("hidden_router · fixed_input", "hidden_router-fixed_input", "hidden_router: fixed_input"):
        assert results.row(typed).label == "hidden_router · fixed_input"
    with pytest.raises(DlbenchError, match="its samples are in none of the folders"):
        results.row("hidden_router").stored_samples()


def test_samples_are_those_of_the_run(results, tmp_path):
    samples = results.row("full", task="nano_summary").samples()
    assert len(samples) == 6
    assert set(samples["layers"]) == {4.0}
    out = shutil.copytree(results.run_dirs[0], tmp_path / "out")
    asked = [json.loads(line) for line in (out / "documents.jsonl").read_text().splitlines()]
    few = {one["id"] for one in asked if "nano_summary" in one["track"]} - {samples["id"][0]}
    kept = [one for one in asked if one["id"] in few]
    (out / "documents.jsonl").write_text("".join(json.dumps(one) + "\n" for one in kept))  # as of a run of fewer
    row = dlbench.load(out).row("full", task="nano_summary")
    assert set(row.samples()["id"]) == few


def test_a_notebook_shows_tables_and_a_chart(results, tmp_path):
    assert results._repr_html_().count("<tr>") == 1 + len(results)
    assert "bumpy" in results.select("bumpy")[0]._repr_html_()
    chart = results.chart("nano_summary")
    assert chart._repr_svg_().startswith("<svg")
    assert chart.save(tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(chart.save(tmp_path / "chart.json").read_text())["$schema"]
    with pytest.raises(DlbenchError, match=r"chart\.gif.*\.svg"):
        chart.save(tmp_path / "chart.gif")
    with pytest.raises(DlbenchError, match=r"no task 'nano'.*nano_summary"):
        results.chart("nano")
    with pytest.raises(DlbenchError, match=r"no cost 'money'.*layers"):
        results.chart(cost="money")


def test_a_fitted_method_comes_back_with_its_weights(results):
    row = results.row("hidden_router", task="nano_summary")
    method = row.configured()
    assert method.params() == dict(row.record.method.params)
    assert method.weights()


def test_the_method_of_a_row_decodes_what_the_row_decoded(results, loaded):
    model, tokenizer = loaded
    before = state(model)
    row = results.row("bumpy", task="nano_summary")
    asked = [json.loads(line) for line in (results.run_dirs[0] / "documents.jsonl").read_text().splitlines()]
    prompts = {one["id"]: one["prompt"] for one in asked if one["track"] == row.record.track}
    samples = row.samples()
    texts = dlbench.evaluate(
        model, row.configured(), [prompts[id_] for id_ in samples["id"]], tokenizer=tokenizer, max_new_tokens=6
    )
    assert [one.text for one in texts] == list(samples["output"])
    assert sum(one.layer_share for one in texts) / 6 == pytest.approx(row.record.compute.layer_share)
    assert unchanged(model, before)


def test_a_changed_method_is_not_taken_for_the_one_that_ran(results, tmp_path):
    row = results.select("bumpy")[0]
    used = row.record.method.model_copy(update={"source_sha256": "0" * 64})
    changed = dataclasses.replace(row, record=row.record.model_copy(update={"method": used}))
    with pytest.raises(DlbenchError, match=r"the code of .*bumpy.* has changed"):
        changed.configured()


def test_a_run_again_decodes_nothing_again(results, loaded, monkeypatch):
    from dlbench.engine import Engine

    model, tokenizer = loaded
    monkeypatch.setattr(Engine, "prefill", lambda *args, **more: pytest.fail("decoded again"))
    again = dlbench.run(
        model,
        ["nano_translate", "nano_summary"],
        ["static_skip"],
        0.5,
        tokenizer=tokenizer,
        limit=6,
        max_new_tokens=6,
        out=results.run_dirs[0],
        timing=False,
        progress="quiet",
        processes=1,
    )
    assert {r.key for r in again.records} < {r.key for r in results.records}


def test_load_reads_a_folder(results):
    assert dlbench.load(str(results.run_dirs[0])).records
    with pytest.raises(DlbenchError, match=r"holds no records\.jsonl"):
        dlbench.load(results.run_dirs[0] / "fits")
    with pytest.raises(DlbenchError, match="no run folder"):
        dlbench.load()


def test_a_loaded_model_needs_its_tokenizer(loaded, tmp_path):
    with pytest.raises(DlbenchError, match="'tiny-llama' is loaded: give its tokenizer too"):
        dlbench.run(loaded[0], "nano_summary", "full", out=tmp_path / "out")


def test_every_option_of_a_run_can_be_given():
    """Names and defaults: a new field of RunSpec or option of tasks must find its way here."""
    given = inspect.signature(dlbench.run).parameters
    renamed = {"models": "model", "include": "include_path", "limit_first": None, "sources": None, "fit": "refit"}
    own = {"limit": None, "fit_seeds": None, "tasks": "nano", "methods": "core", "out": "dlbench-out", "model": "nano"}
    fields = [*dataclasses.fields(RunSpec), *dataclasses.fields(RunSpec().sources)]
    for field in fields:
        name = renamed.get(field.name, field.name)
        if name is None:
            continue
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        default = own.get(name, None if name in ("settings",) else default)
        assert given[name].default == default, name


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import dlbench, sys; print(sorted({'torch', 'pandas', 'lm_eval'} & set(sys.modules)), 'run' in dir(dlbench))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split("\n")[0] == "[] True"
