"""The hash of the weights in memory, that of a model's files, and the content key that holds both."""

import dataclasses
import hashlib
import json
from pathlib import Path

import checkpoints
import pytest
import record_samples
import small_model
import tiny_models
import torch
from checkpoints import copy, rewrite
from safetensors.torch import load_file, save_file
from torch import nn

from dlbench.evaluation.settings import Setting
from dlbench.methods.full import Full
from dlbench.models.catalog import INT8
from dlbench.models.checkpoint import hashes
from dlbench.models.checkpoint.hashes import fingerprint, weights_sha256
from dlbench.models.loading import embedded_folder, load


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "small")


def of(**tensors):
    """The hash of a module with these parameters."""
    module = nn.Module()
    for name, tensor in tensors.items():
        module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    return weights_sha256(module, "files")


def test_the_hash_is_that_of_names_kinds_and_bytes():
    a, b = torch.arange(6.0).reshape(2, 3), torch.tensor(1.5, dtype=torch.float16)
    wanted = hashlib.sha256()
    for head, raw in ((b"a\0torch.float32\0(2, 3)\0", a.numpy().tobytes()), (b"b\0torch.float16\0()\0", b"\x00\x3e")):
        wanted.update(head + hashlib.sha256(raw).digest())
    assert of(b=b, a=a) == wanted.hexdigest()


def test_whatever_is_different_shows():
    x = torch.arange(8.0)
    nearly = x.clone()
    nearly[7] = torch.nextafter(x[7], torch.tensor(9.0))
    others = [of(w=nearly), of(v=x), of(w=x.reshape(2, 4)), of(w=x.view(torch.int32)), of(w=x.to(torch.bfloat16)),
              of(w=x, v=x), of(w=-x), of(w=x[:7]), of(w=x.flip(0))]  # fmt: skip
    assert len({of(w=x), *others}) == 1 + len(others)


def test_what_is_equal_counts_alike_however_it_lies():
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert of(a=x, b=x) == of(a=x, b=x.clone()) == of(b=x, a=x.T.contiguous().T) == of(a=torch.cat([x, x])[:4], b=x)
    twice = nn.Embedding(4, 6)
    assert of(a=twice.weight, b=twice.weight) == of(a=twice.weight.clone(), b=twice.weight)
    every = {f"k{i}": torch.ones(2, 2).to(kind) for i, kind in enumerate((torch.bfloat16, torch.bool, torch.uint8))}
    assert of(**every, k9=torch.zeros(0)) == of(**every, k9=torch.zeros(0))


def test_pieces_threads_and_order_make_no_difference(monkeypatch):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(hashes, "PIECE", 1 << 10)
    several = of(w=x)
    monkeypatch.setattr(hashes, "cores", lambda: 1)
    assert of(w=x) == several
    swapped = torch.cat([x[256:512], x[:256], x[512:]])  # whole pieces
    assert of(w=swapped) != several


def test_what_waits_on_a_disk_is_named_by_its_files():
    with torch.device("meta"):
        model = nn.Linear(3, 3)
    found = {weights_sha256(model, "one"), weights_sha256(model, "two"), weights_sha256(nn.Linear(3, 3), "one")}
    assert len(found) == 3


def test_a_loaded_model_knows_its_weights(small, tmp_path):
    first, again = load(str(small)), load(str(small))
    assert first.weights_sha256 == again.weights_sha256 == weights_sha256(first.model, "")
    for change in (lambda w: {**w, "model.norm.weight": w["model.norm.weight"] + 1e-6}, lambda w: dict(w)):
        folder = rewrite(copy(small, tmp_path / str(change)), change)
        changed = load(str(folder)).weights_sha256 != first.weights_sha256
        equal = torch.equal(load_file(folder / "model.safetensors")["model.norm.weight"], first.model.model.norm.weight)
        assert changed != equal


def test_the_weights_are_those_before_they_are_quantised_and_as_they_were_cast(small):
    plain, half = load(str(small)), load(str(small), dtype="bfloat16")
    assert plain.weights_sha256 != half.weights_sha256 and plain.sha256 == half.sha256
    int8 = load(str(small), dtype=INT8)
    assert int8.weights_sha256 == plain.weights_sha256 and int8.sha256 != plain.sha256


def test_a_tied_head_and_one_that_is_written_out_are_the_same_weights(tmp_path):
    tied = checkpoints.save(checkpoints.tied("llama"), tmp_path / "tied")
    out = rewrite(
        copy(tied, tmp_path / "out", tie_word_embeddings=False),
        lambda w: {**w, "lm_head.weight": w["model.embed_tokens.weight"].clone()},
    )
    assert load(str(tied)).weights_sha256 == load(str(out)).weights_sha256


def test_content_keys_hold_the_weights_in_memory():
    here = record_samples.conditions()
    full = Setting("full", "full", Full(), None)
    keys, fits = set(), set()
    for weights in ("", "aa" * 32, "bb" * 32):
        backbone = dataclasses.replace(here.backbone, weights_sha256=weights)
        there = dataclasses.replace(here, backbone=backbone)
        keys.add(there.key(full))
        fits.add(there.fit_key("full", Full(), 0.5, 0, "x"))
        assert there.track == here.track  # what is compared goes by the files
    assert len(keys) == len(fits) == 3


# ---- files


def test_weights_in_other_folders_count_and_their_index_does_not(small, tmp_path):
    folder = copy(small, tmp_path / "m")
    weights = load_file(small / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (folder / "in").mkdir()
    save_file(weights, folder / "in" / "one.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "in/one.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    first = load(str(folder))
    assert first.sha256 == fingerprint(folder) and first.weights_sha256 == load(str(small)).weights_sha256
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    assert fingerprint(folder) == first.sha256
    rewritten = {key: value + 1 for key, value in weights.items()}
    save_file(rewritten, folder / "in" / "one.safetensors", {"format": "pt"})
    assert fingerprint(folder) != first.sha256


def test_weights_that_the_configuration_names_count(small, tmp_path):
    folder = copy(small, tmp_path / "m", transformers_weights="in/mine.safetensors")
    (folder / "in").mkdir()
    (folder / "model.safetensors").rename(folder / "in" / "mine.safetensors")
    before = load(str(folder)).sha256
    weights = {key: value * 2 for key, value in load_file(folder / "in" / "mine.safetensors").items()}
    save_file(weights, folder / "in" / "mine.safetensors", {"format": "pt"})
    assert load(str(folder)).sha256 != before


@pytest.mark.parametrize(
    "file", ["tekken.json", "qwen.tiktoken", "tokenizer.model", "vocab.txt", "chat_template.jinja"]
)
def test_every_file_of_a_tokenizer_counts(file, small, tmp_path):
    folder = copy(small, tmp_path / "m")
    before = fingerprint(folder)
    (folder / file).write_text("x")
    assert fingerprint(folder) != before


def test_folders_and_other_files_do_not_count(small, tmp_path):
    folder = copy(small, tmp_path / "m")
    before = fingerprint(folder)
    for name in ("tokenizer", "vocab", "old.safetensors"):
        (folder / name).mkdir()
    for name in ("README.md", "train_log.jsonl", "dlbench.json"):
        (folder / name).write_text("x")
    assert fingerprint(folder) == before


def test_the_embedded_models_are_called_what_public_records_say():
    """Files are hashed as ever: records, cards and tracks of earlier runs hold these."""
    files = (Path(__file__).parents[2] / "leaderboard" / "records").rglob("*.jsonl")
    records = [
        json.loads(line)["backbone"] for path in files for line in path.read_text().splitlines() if "backbone" in line
    ]
    said = {record["name"]: record["sha256"] for record in records if record["dtype"] != INT8}
    assert {name: fingerprint(embedded_folder(name)) for name in ("nano", "nano-half")}.items() <= said.items()


def test_tiny_models_have_a_hash_each():
    found = [weights_sha256(tiny_models.build("llama", depth=2, seed=seed), "") for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
