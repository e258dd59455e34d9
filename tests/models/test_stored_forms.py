"""Checkpoints in the forms that people have: quantised, in several files, pickled, and in a dtype of their own."""

import json
from copy import deepcopy

import gguf_files
import pytest
import small_model
import torch
from checkpoints import copy, rewrite
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig

from dlbench.cli import main
from dlbench.engine import Engine, Request
from dlbench.engine.proof import at_load
from dlbench.errors import DlbenchError
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap
from dlbench.models.catalog import AUTO
from dlbench.models.checkpoint.quantised import check_linear, described
from dlbench.models.checkpoint.source import Placement
from dlbench.models.families import FAMILIES
from dlbench.models.loading import embedded_folder, load, settled_dtype
from dlbench.models.recognition.linear_maps import linear_flops
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record
from dlbench.running.notices import Notices
from dlbench.terminal.quiet import quiet_torchao

IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "small")


@torch.no_grad()
def logits(model):
    return model.eval()(IDS).logits


# ---- quantised


@pytest.fixture(scope="module")
def torchao(tmp_path_factory):
    """A checkpoint that torchao quantised, and the model that it was saved from."""
    from torchao.quantization import Int8WeightOnlyConfig

    root = tmp_path_factory.mktemp("torchao")
    gguf_files.model().save_pretrained(root / "plain")
    with quiet_torchao():
        how = TorchAoConfig(Int8WeightOnlyConfig())
        model = AutoModelForCausalLM.from_pretrained(root / "plain", quantization_config=how, dtype=torch.float32)
        model.save_pretrained(root / "quantised")
    AutoTokenizer.from_pretrained(embedded_folder("nano")).save_pretrained(root / "quantised")
    return root / "quantised", model


def test_a_checkpoint_of_torchao_runs_as_it_was_saved(torchao, tmp_path):
    folder, model = torchao
    backbone = load(str(folder))
    assert torch.equal(logits(backbone.model), logits(model))
    assert backbone.quantization == "torchao Int8WeightOnly" and backbone.dtype == "float32"
    assert type(backbone.layers[0].self_attn.q_proj.weight.data).__name__ == "Int8Tensor"
    line = f"run --model {folder} --task nano_summary --method full --method static_skip --budget 0.5 --limit 2"
    line += f" --max-new-tokens 4 --no-timing --device cpu --out {tmp_path / 'out'}"
    assert main(line.split()) == 0
    full, half = read_lines(tmp_path / "out" / "records.jsonl", Record)
    assert full.backbone.quantization == half.backbone.quantization == "torchao Int8WeightOnly"
    assert full.compute.flops.layers == 2 * half.compute.flops.layers > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_checkpoint_that_is_dequantised_has_one_dtype(dtype, tmp_path):
    """Without a GPU transformers dequantises FP8, to the dtype of the checkpoint rather than the one asked for."""
    how = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
    saved = small_model.save(tmp_path / "plain", dtype=torch.bfloat16)
    folder = copy(saved, tmp_path / "m", quantization_config=how)
    plain = load_file(folder / "model.safetensors")
    rewrite(folder, lambda weights: dict(entry for one in weights.items() for entry in in_fp8(*one)))
    backbone = load(str(folder), dtype=dtype)
    assert {p.dtype for p in backbone.model.parameters()} == {getattr(torch, dtype)}
    assert (backbone.dtype, backbone.quantization) == (dtype, "fp8")
    name = "model.layers.1.mlp.up_proj.weight"
    wanted = plain[name].float()
    assert torch.allclose(backbone.model.get_parameter(name).float(), wanted, atol=wanted.abs().max().item() / 16)
    (written,) = Engine(backbone).prefill([Request("a", (5, 6, 7), 4)]).decode()
    assert len(written.tokens) > 0


def in_fp8(name, weight):
    """A weight as FP8 checkpoints store it: a matrix of the layers as float8, and a scale for each of its blocks."""
    if "proj" not in name:
        return [(name, weight)]
    scale = weight.float().abs().max() / 448
    return [
        (name, (weight.float() / scale).to(torch.float8_e4m3fn)),
        (f"{name}_scale_inv", scale.reshape(1, 1)),
    ]


class Hidden(torch.nn.Module):
    """A linear map that does not say its size."""


class Packed(torch.nn.Module):
    """A linear map as those of GPTQ and AWQ are: of a class of its own, with whole numbers in place of weights."""

    def __init__(self, linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        scales = linear.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("qweight", (linear.weight.detach() / scales).round().to(torch.int8).T.contiguous())
        self.register_buffer("scales", scales.T.contiguous())

    def forward(self, x):
        return x @ (self.qweight * self.scales)

    def plain(self):
        linear = torch.nn.Linear(self.in_features, self.out_features, bias=False)
        linear.weight = torch.nn.Parameter((self.qweight * self.scales).T.contiguous())
        return linear


def replaced(model, change):
    """A copy of a model whose layers have other linear maps."""
    model = deepcopy(model)
    for module in list(model.model.layers.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, (torch.nn.Linear, Packed)):
                setattr(module, name, change(child))
    return model.eval()


@pytest.mark.parametrize("recognised", [False, True])
def test_maps_of_a_class_of_its_own_count_where_they_say_their_size(recognised, monkeypatch):
    """Also where the family is recognised: the proof at load then compares FLOPs with torch's counter."""
    packed = replaced(gguf_files.model(), Packed)
    packed.config.quantization_config = how = {"quant_method": "gptq", "bits": 4}
    check_linear("m", packed, how)
    if recognised:
        monkeypatch.delitem(FAMILIES, "llama")
    texts = []
    for model in (packed, replaced(packed, Packed.plain)):
        engine = Engine(wrap(model, name="m"), kernels="stock")
        wave = engine.prefill([Request("a", (5, 6, 7), 6)])
        with at_load._eager(model), FlopCounterMode(display=False) as counter:
            (text,) = wave.decode(StaticSkip(only=(0, 2)))
        assert text.executed == counter.get_total_flops() > 0
        texts.append((text.tokens, text.flops, text.executed))
    assert texts[0] == texts[1]
    assert wrap(packed).family.recognised is recognised


def test_a_scheme_that_hides_the_size_of_its_maps_is_refused(torchao):
    backbone = load(str(torchao[0]))
    how = {"quant_method": "gptq", "bits": 4}
    check_linear("m", backbone.model, how)
    backbone.layers[1].mlp.up_proj = Hidden()
    with pytest.raises(DlbenchError, match=r"quantised by gptq 4 bit, whose Hidden \(model\.layers\.1\.mlp\.up_proj\)"):
        check_linear("m", backbone.model, how)


def test_flops_are_those_of_the_sizes_not_of_the_stored_numbers():
    linear = torch.nn.Linear(64, 32, bias=False)
    linear.weight = torch.nn.Parameter(torch.zeros(1024, 1, dtype=torch.uint8), requires_grad=False)  # two in a byte
    assert linear_flops(linear) == 2 * 64 * 32


def test_what_is_quantised_is_not_quantised_again(torchao):
    with pytest.raises(DlbenchError, match=r"is quantised already \(torchao Int8WeightOnly\): leave --dtype int8 away"):
        load(str(torchao[0]), dtype="int8")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes nf4"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes int8"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq 4 bit"),
        ({"quant_method": "awq", "w_bit": 4}, "awq 4 bit"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors pack-quantized"),
        ({"quant_method": "fp8", "fmt": "e4m3"}, "fp8 e4m3"),
        ({"quant_method": "of tomorrow"}, "of tomorrow"),
        ({}, "unknown"),
    ],
)  # fmt: skip
def test_a_scheme_is_named_in_a_few_words(how, said):
    assert described(how) == said


# ---- several files, and files of torch


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_files_of_torch_and_several_files_give_the_same_model(kind, shards, small, tmp_path):
    folder = copy(small, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    stem = "model" if kind == "safetensors" else "pytorch_model"
    where = {}
    for number in range(shards):
        held = {name: weights[name] for name in names[number::shards]}
        file = f"{stem}.{kind}" if shards == 1 else f"{stem}-{number + 1:05}-of-{shards:05}.{kind}"
        where |= dict.fromkeys(held, file)
        put(held, folder / file)
    if shards > 1:
        (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    backbone, plain = load(str(folder)), load(str(small))
    assert torch.equal(logits(backbone.model), logits(plain.model))
    assert backbone.weights_sha256 == plain.weights_sha256 and backbone.sha256 != plain.sha256


def put(weights, path):
    from safetensors.torch import save_file

    save_file(weights, path, {"format": "pt"}) if path.suffix == ".safetensors" else torch.save(weights, path)


class Bag(dict):
    """A dictionary that only its own code can build."""


def test_pickled_code_runs_for_those_who_trust_it_only(small, tmp_path):
    folder = copy(small, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(Bag(weights), folder / "pytorch_model.bin")
    with pytest.raises(DlbenchError, match=r"pytorch_model\.bin holds more than tensors.* --trust-remote-code"):
        load(str(folder))
    assert torch.equal(logits(load(str(folder), trust_remote_code=True).model), logits(load(str(small)).model))


# ---- dtypes


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("said", [True, False])
def test_auto_is_the_checkpoints_own_dtype(stored, said, tmp_path):
    folder = small_model.save(tmp_path / "m", dtype=getattr(torch, stored))
    if not said:  # the files say it then
        folder = copy(folder, tmp_path / "silent", dtype=None)
    backbone = load(str(folder), dtype=AUTO)
    assert (backbone.dtype, backbone.stored_dtype) == (stored, stored)
    assert load(str(folder)).dtype == "float32"


def test_on_a_gpu_float32_becomes_bfloat16():
    gpu, cpu = Placement("cuda:0", None), Placement("cpu", None)
    assert gpu.settled("float32").dtype == gpu.settled("bfloat16").dtype == torch.bfloat16
    assert gpu.settled("float16").dtype == torch.float16 and cpu.settled("float32").dtype == torch.float32
    assert Placement("cuda:0", torch.float32).settled("bfloat16").dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "name", "device", "wanted"),
    [
        (None, "org/name", "cpu", "float32"),
        (None, "org/name", "mps", "float32"),
        (None, "org/name", "cuda:0", AUTO),
        (None, "nano", "cuda:0", "float32"),
        (AUTO, "nano", "cuda:0", AUTO),
        ("float16", "org/name", "cuda:0", "float16"),
    ],
)
def test_the_default_depends_on_the_device(given, name, device, wanted):
    assert settled_dtype(given, name, device) == wanted


class Heard:
    def __init__(self):
        self.lines = []

    def note(self, line):
        self.lines.append(line)


def test_another_dtype_than_its_own_is_said(small):
    heard = Heard()
    backbone = load(str(small))
    Notices(heard).checkpoint(backbone, AUTO)
    assert heard.lines == []
    backbone.dtype = "bfloat16"  # as on a GPU
    Notices(heard).checkpoint(backbone, "bfloat16")  # as asked for
    assert heard.lines == []
    Notices(heard).checkpoint(backbone, AUTO)
    (line,) = heard.lines
    assert line == "small: its weights are float32, and run in bfloat16 on a GPU; --dtype float32 keeps them"


def test_auto_runs_and_is_recorded_as_what_it_was(tmp_path):
    folder = small_model.save(tmp_path / "m", dtype=torch.bfloat16)
    line = f"run --model {folder} --task nano_summary --method static_skip --budget 0.5 --limit 2 --max-new-tokens 4"
    assert main([*line.split(), "--dtype", "auto", "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    assert {r.backbone.dtype for r in read_lines(tmp_path / "out" / "records.jsonl", Record)} == {"bfloat16"}
