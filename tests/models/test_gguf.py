"""GGUF files: read as transformers reads them, whole or not at all, and everything comes out of the file."""

import hashlib
import json
import shutil
import sys

import gguf_files
import numpy as np
import pytest
import small_model
import torch
from gguf_files import CHAT
from transformers import AutoModelForCausalLM

from dlbench.cli import main
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.models.checkpoint import gguf_file
from dlbench.models.loading import load
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record
from dlbench.system.paths import brief

IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return gguf_files.save(tmp_path_factory.mktemp("gguf") / "tiny.Q4_1.gguf")


@torch.no_grad()
def logits(model):
    return model(IDS).logits


@pytest.mark.parametrize(
    ("kind", "quantization", "stored"),
    [
        ("Q4_1", "gguf Q4_1", "float32"),
        ("Q8_0", "gguf Q8_0", "float32"),
        ("F16", None, "float16"),
        ("F32", None, "float32"),
    ],
)
def test_logits_are_those_of_transformers(kind, quantization, stored, tmp_path):
    path = gguf_files.save(tmp_path / "m.gguf", kind=kind)
    with gguf_file.parsed_once():  # which keeps a progress bar off the terminal
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32).eval()
    ours = load(str(path))
    assert torch.equal(logits(ours.model), logits(theirs))
    assert (ours.quantization, ours.stored_dtype, ours.dtype) == (quantization, stored, "float32")
    if kind == "F32":
        assert torch.equal(logits(ours.model), logits(gguf_files.model()))
    assert load(str(path), dtype="auto").dtype == stored


def test_it_is_named_by_its_file_and_known_by_its_sha256(file):
    backbone = load(str(file))
    assert backbone.name == "tiny.Q4_1.gguf" and backbone.kind == "llama" and backbone.depth == 4
    assert backbone.sha256 == backbone.base_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    again = load(str(file.parent))  # the folder that holds it
    assert (again.sha256, again.weights_sha256) == (backbone.sha256, backbone.weights_sha256)


def test_everything_comes_out_of_the_file(file, tmp_path):
    """What lies beside it, such as another model's tokenizer and settings, is not looked at."""
    folder = small_model.save(tmp_path / "m", chat="{{ 'other' }}")
    (folder / "model.safetensors").unlink()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    shutil.copy(file, folder)
    alone, backbone = load(str(file)), load(str(folder / file.name))
    for one in (alone, backbone):
        assert one.tokenizer.chat_template == CHAT and one.tokenizer.padding_side == "left"
        assert one.eos == {2} and one.model.generation_config.eos_token_id == 2
        assert one.plain("a few words") == load("nano").plain("a few words")
    assert backbone.sha256 == alone.sha256


def test_fused_layers_run_the_dequantised_weights(file):
    assert Engine(load(str(file))).kernels == "fused"


def test_a_dequantised_model_can_be_saved(file, tmp_path):
    backbone = load(str(file))
    backbone.model.save_pretrained(tmp_path / "m")
    backbone.tokenizer.save_pretrained(tmp_path / "m")
    again = load(str(tmp_path / "m"))
    assert torch.equal(logits(again.model), logits(backbone.model)) and again.quantization is None
    assert again.weights_sha256 == backbone.weights_sha256


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def blank(path):
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) - 60_000] + bytes(60_000))


def rewritten(**options):
    return lambda path: gguf_files.save(path, **options)


def parts(path):
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


FAULTS = {
    "cut off in its weights": (cut(0.7), r"tiny\.gguf is cut off or damaged, [\d,]+ bytes long: fetch or copy it"),
    "cut off in its header": (cut(0.02), r"tiny\.gguf is cut off or damaged"),
    "a byte short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"tiny\.gguf is cut off or damaged"),
    "empty": (lambda path: path.write_bytes(b""), r"tiny\.gguf is empty"),
    "a copy that broke off": (blank, r"ends in 60,\d\d\d zero bytes, which begin inside .*: its copying broke off"),
    "another file": (lambda path: path.write_bytes(b"\x93NUMPY" * 99), r"is no GGUF file, whatever its name says"),
    "a web page": (lambda path: path.write_bytes(b"<html>" * 99), r"is a web page, not the file"),
    "an architecture of tomorrow": (
        rewritten(architecture="llama9"),
        r"it is a GGUF file of the architecture 'llama9', which transformers cannot read",
    ),
    "an encoder": (rewritten(architecture="t5"), r"is of type 't5', which dlbench cannot run: "),
    "tensors that the reader drops": (
        rewritten(more={"rope_freqs.weight": np.ones(8, np.float32)}),
        r"transformers' reader of GGUF drops 1 of its 40 tensors \(rope_freqs\.weight\); take the model's safetensors",
    ),
    "no tokenizer": (rewritten(tokenizer=False), r"cannot read the tokenizer in its GGUF file"),
    "one part of several": (parts, r"is one of 3 parts: merge them into one file first"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_read_says_why(name, file, tmp_path):
    change, message = FAULTS[name]
    path = tmp_path / "tiny.gguf"
    shutil.copy(file, path)
    change(path)
    with pytest.raises(DlbenchError, match=message) as refused:
        load(str(path))
    said = str(refused.value)
    assert "\n" not in said and len(said) < 900
    assert str(path) in said or brief(str(path)) in said


def test_one_of_several_files_is_chosen_by_its_path(file, tmp_path):
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(file, tmp_path / name)
    with pytest.raises(DlbenchError, match=r"holds 2 GGUF files \(a\.gguf, b\.gguf\): give the path of one of them"):
        load(str(tmp_path))
    assert load(str(tmp_path / "b.gguf")).name == "b.gguf"


def test_without_the_package_one_line_says_what_to_install(file, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(DlbenchError, match=r"GGUF files need the package gguf: pip install 'dlbench\[gguf\]'"):
        load(str(file))


def test_a_run_records_its_quantisation(file, tmp_path):
    line = f"run --model {file} --task nano_summary --method full --method static_skip --budget 0.5 --limit 2"
    line += f" --max-new-tokens 4 --no-timing --device cpu --out {tmp_path / 'out'}"
    assert main(line.split()) == 0
    records = list(read_lines(tmp_path / "out" / "records.jsonl", Record))
    assert {(r.backbone.name, r.backbone.quantization, r.backbone.dtype) for r in records} == {
        ("tiny.Q4_1.gguf", "gguf Q4_1", "float32")
    }
    assert "from a checkpoint in gguf Q4_1" in (tmp_path / "out" / "site" / "index.html").read_text()
