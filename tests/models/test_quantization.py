"""Weight-only int8: the same engine on quantised layers, counted as the dense ones, close to them, and told apart."""

import builtins

import pytest
import replay
import tiny_models
import torch
from record_samples import conditions

from dlbench.engine import Engine, Request
from dlbench.engine.flops.costs import Costs
from dlbench.errors import DlbenchError
from dlbench.evaluation.settings import Setting
from dlbench.methods.calm import Calm
from dlbench.methods.static_exit import StaticExit
from dlbench.models import loading
from dlbench.models.backbone import wrap
from dlbench.models.catalog import INT8
from dlbench.models.quantization import plain_share, to_int8, torchao
from dlbench.running import config as spec
from dlbench.running.notices import Notices
from dlbench.terminal.progress import Progress

LIMIT = 8


def quantised(family, **more):
    backbone = wrap(tiny_models.build(family, **more), name="tiny")
    to_int8(backbone.layers)
    backbone.dtype = INT8
    return backbone


@pytest.mark.parametrize("family", tiny_models.EVERY)
def test_every_family_decodes_and_is_counted_as_its_dense_self(family):
    dense, backbone = tiny_models.backbone(family), quantised(family)
    assert (Costs(backbone).layer == Costs(dense).layer).all() and Costs(backbone).head == Costs(dense).head
    prompts = tiny_models.prompts(3)
    columns = max(map(len, prompts))
    ids = torch.tensor([[0] * (columns - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (columns - len(p)) + [1] * len(p) for p in prompts])
    stock = backbone.model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=LIMIT, pad_token_id=0)
    engine = Engine(backbone)
    written = engine.prefill([Request(str(i), p, LIMIT) for i, p in enumerate(prompts)]).decode()
    assert [g.tokens for g in written] == stock[:, columns:].tolist()
    assert engine.kernels == "stock" and engine.kernels_note
    with torch.inference_mode():
        a, b = (m.model(ids, attention_mask=mask).logits[:, -1] for m in (dense, backbone))
    assert 0 < (a - b).abs().max() < 0.2 * a.abs().max()


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "gpt_neox", "falcon-7b", "gemma3"])
@pytest.mark.parametrize("method", [Calm(threshold=0.2), StaticExit(share=0.5)], ids=["confidence", "static"])
def test_routing_equals_its_replay(monkeypatch, family, method):
    backbone = quantised(family)
    replay.check(monkeypatch, backbone, method, tiny_models.prompts(5), [LIMIT] * 5, tolerance=1e-5)


def test_what_is_quantised():
    backbone = quantised("llama")
    kept = {n for n, p in backbone.model.named_parameters() if type(p.data) is torch.Tensor and p.ndim > 1}
    assert kept == {"model.embed_tokens.weight", "lm_head.weight"}
    weight = backbone.layers[0].mlp.up_proj.weight
    assert weight.qdata.dtype == torch.int8 and weight.shape == (48, 32)
    assert backbone.precision == "float32" and backbone.cache_bytes == 2 * 2 * 8 * 4


@pytest.mark.parametrize("family", ["qwen2_moe", "gpt_oss"])
def test_experts_stay_as_they_are_and_it_is_said(capsys, family):
    dense, backbone = tiny_models.backbone(family), quantised(family)
    assert (Costs(backbone).parts == Costs(dense).parts).all()
    kept = {n for n, p in backbone.layers[1].named_parameters() if type(p.data) is torch.Tensor and p.ndim > 1}
    assert {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"} <= kept
    assert not any("self_attn" in name or "shared" in name for name in kept)
    share = plain_share(backbone.layers)
    matrices = [(n, p.numel()) for n, p in dense.layers.named_parameters() if p.ndim > 1]
    routed = sum(size for name, size in matrices if "experts." in name or "mlp.gate.w" in name or "router" in name)
    assert share == routed / sum(size for _, size in matrices) and plain_share(quantised("llama").layers) == 0
    notices = Notices(Progress(shown=True))
    for each in (dense, quantised("llama"), backbone):
        notices.int8(each)
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"tiny in int8: {share:.0%} of the weights of its layers stay in float32")
    assert said.count("tiny") == 1
    written = Engine(backbone).prefill([Request("a", (5, 6, 7), LIMIT)]).decode()
    stock = backbone.model.generate(torch.tensor([[5, 6, 7]]), do_sample=False, max_new_tokens=LIMIT, pad_token_id=0)
    assert written[0].tokens == stock[0, 3:].tolist()


def test_nano_in_int8_is_derived_from_nano():
    plain, int8 = loading.load("nano"), loading.load("nano", dtype=INT8)
    assert (int8.dtype, int8.precision, int8.base_sha256) == ("int8", "float32", plain.sha256)
    assert int8.sha256 != plain.sha256 and int8.id != plain.id
    assert [loading.plain_dtype(d, "cuda:0") for d in ("int8", "float16")] == ["bfloat16", "float16"]


def test_its_rows_have_keys_of_their_own():
    here = conditions()
    full = Setting("full", "full", StaticExit(share=1.0), None)
    key = here.key(full)
    here.backbone.dtype = INT8
    assert here.key(full) != key
    assert "torchao" in here.versions and "torchao" not in conditions().versions


@pytest.mark.parametrize(
    ("failure", "said"),
    [(ModuleNotFoundError("No module named 'torchao'"), "is not installed"), (OSError("x"), "fails")],
)
def test_without_torchao_it_is_one_line(monkeypatch, failure, said):
    original = builtins.__import__

    def without(name, *rest, **more):
        if name.partition(".")[0] == "torchao":
            raise failure
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    asked = spec.RunSpec(methods=("full",), tasks=(), dtype=INT8)
    with pytest.raises(DlbenchError, match=rf"^dtype int8: torchao {said}.*; pip install 'dlbench\[int8\]'$"):
        spec.check_environment(asked)
    monkeypatch.undo()
    assert torchao().quantize_
