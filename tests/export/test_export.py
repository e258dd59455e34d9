"""A static row as a checkpoint of its own."""

import json

import pytest
import small_model
import tiny_models
import torch
from tiny_models import prompts
from transformers import AutoModelForCausalLM, AutoTokenizer

import dlbench
from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.export.checkpoint import layers_of
from dlbench.export.pruning import prune
from dlbench.method import Action, LayerSet
from dlbench.models.loading import load


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def results(model, tmp_path_factory):
    return dlbench.run(
        model,
        "nano_summary",
        ["static_skip", "static_exit", "random_skip"],
        0.5,
        limit=50,
        max_new_tokens=12,
        prompt="routed",
        out=tmp_path_factory.mktemp("run") / "out",
        timing=False,
        progress="quiet",
        processes=1,
    )


def test_the_checkpoint_writes_the_rows_texts_through_generate_alone(results, tmp_path):
    row = results.row("static_skip")
    made = row.export(tmp_path / "half")
    assert made.layers == (0, 2)
    assert made.texts == 8
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "half")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "half")
    asked = [json.loads(line) for line in (results.run_dirs[0] / "documents.jsonl").read_text().splitlines()]
    texts = dict(zip(row.samples()["id"], row.samples()["output"], strict=True))
    assert len(texts) == 50
    for one in asked:
        ids = tokenizer(one["prompt"], return_tensors="pt")["input_ids"]
        new = plain.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert tokenizer.decode(new, skip_special_tokens=True) == texts[one["id"]]


def test_its_rows_stand_beside_the_bases(results, tmp_path):
    row = results.row("static_exit")
    made = row.export(tmp_path / "cut")
    backbone = load(str(tmp_path / "cut"))
    assert backbone.depth == 2
    assert backbone.sha256 == made.sha256
    assert backbone.base_sha256 == row.record.backbone.sha256
    card = (tmp_path / "cut" / "README.md").read_text()
    assert f"{row.record.quality.retained:.3f}" in card
    assert "has: 0, 1" in card
    assert made.sha256 in card


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("full", "full runs every layer: that is the model itself"),
        ("random_skip", "random_skip at 0.5 decides while it decodes"),
    ],
)
def test_what_is_no_checkpoint_is_said(results, tmp_path, method, message):
    with pytest.raises(DlbenchError, match=message):
        results.select(method)[0].export(tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_halves_of_layers_are_no_checkpoint():
    class Attention(LayerSet):
        def actions(self, depth):
            return (Action.RUN, Action.ATTN, *[Action.SKIP] * (depth - 2))

    with pytest.raises(DlbenchError, match=r"a row runs halves of layers \(1\)"):
        layers_of(Attention((0, 1)), 4, "a row")


def test_another_model_is_refused(results, tmp_path):
    other = small_model.save(tmp_path / "other", initializer_range=0.3)
    with pytest.raises(DlbenchError, match=r"other is not the tiny-llama that ran.*give --model"):
        results.row("static_skip").export(tmp_path / "out", model=other)


def test_a_full_folder_is_left_alone(results, tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(DlbenchError, match="is not empty"):
        results.row("static_skip").export(tmp_path)
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_checkpoint_that_writes_other_texts_is_refused(results, tmp_path, monkeypatch):
    """As it would be if the configuration could not say which layers stay."""

    def wrong(model, family, layers):
        prune(model, family, [layer + 1 for layer in layers])

    monkeypatch.setattr("dlbench.export.checkpoint.prune", wrong)
    with pytest.raises(DlbenchError, match="writes another text than the row"):
        results.row("static_skip").export(tmp_path / "half")


@pytest.mark.parametrize(
    "family", ["gpt2", "gemma2", "gemma3", "smollm3", "lfm2", "jamba", "qwen3_5", "qwen3_next", "llama4", "opt"]
)
def test_pruned_families_load_again_and_write_the_same(family, tmp_path):
    """What a layer is may stand in the configuration: kinds of attention, of recurrence, of positions."""
    backbone = tiny_models.backbone(family, 4 if family == "llama4" else 5)
    layers = tuple(i for i in range(backbone.depth) if i != 1)
    texts = prompts(3)
    requests = [Request(str(n), ids, 8) for n, ids in enumerate(texts)]
    method = LayerSet(layers)
    expected = [g.tokens for g in Engine(backbone).prefill(requests, method).decode(method)]
    model = backbone.model
    prune(model, backbone.family, layers)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    for ids, tokens in zip(texts, expected, strict=True):
        whole = again.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
        assert whole[0, len(ids) :].tolist()[: len(tokens)] == tokens
