"""Buffers that no file holds are those that a model's own code makes, not what stood in the memory."""

import json

import pytest
import small_model
import torch
from checkpoints import copy

from dlbench.models.loading import load

OWN = """
import torch
from torch import nn
from transformers import LlamaForCausalLM


class Angles(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("angles", 1.0 / 50.0 ** (torch.arange(width) / width), persistent=False)


class Own(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("table", torch.arange(100_000) / 7.0, persistent=False)
        self.register_buffer("counts", torch.arange(70_000), persistent=False)
        self.register_buffer("later", torch.empty(80_000), persistent=False)
        self.inner = nn.ModuleList(Angles(60_000) for _ in range(2))
        self.post_init()

    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self or hasattr(module, "later"):
            nn.init.constant_(module.later, 3.0)
"""


@pytest.fixture
def own(tmp_path):
    small = small_model.save(tmp_path / "small")
    folder = copy(small, tmp_path / "own", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
    (folder / "modeling_own.py").write_text(OWN)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_models_own_code_fills_its_buffers(dtype, own):
    litter = [torch.full((n,), 9e9) for n in (100_000, 80_000, 70_000, 60_000)]
    del litter  # what the loaded model would find in its memory
    model = load(str(own), trust_remote_code=True, dtype=dtype).model
    assert type(model).__name__ == "Own"
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        wanted = dict(type(model)(model.config).named_buffers())  # as its code makes it, with memory
    finally:
        torch.set_default_dtype(torch.float32)
    found = dict(model.named_buffers())
    for name in ("table", "counts", "inner.0.angles", "inner.1.angles", "model.rotary_emb.inv_freq"):
        assert torch.equal(found[name], wanted[name]) and found[name].dtype == wanted[name].dtype, name
    assert set(found["later"].tolist()) == {3.0}
    assert found["counts"].dtype == torch.int64 and float(found["table"][70]) == 10.0
    weights = load(str(own), trust_remote_code=True, dtype=dtype).weights_sha256
    assert weights == load(str(own.parent / "small"), dtype=dtype).weights_sha256


def test_layers_that_wait_on_disk_do_too(own, tmp_path):
    lines = OWN.splitlines()  # a map names modules, so the model itself has no buffers here
    kept = [line for line in lines if "self.register_buffer" not in line or "angles" in line]
    (own / "modeling_own.py").write_text("\n".join(kept[: kept.index("    def _init_weights(self, module):")]))
    places = dict.fromkeys(["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head", "inner"], "cpu")
    places |= {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(4)}
    (tmp_path / "map.json").write_text(json.dumps(places))
    litter = [torch.full((60_000,), 9e9) for _ in range(4)]
    del litter
    model = load(str(own), trust_remote_code=True, device_map=str(tmp_path / "map.json")).model
    wanted = 1.0 / 50.0 ** (torch.arange(60_000) / 60_000)
    assert all(torch.equal(one.angles, wanted) for one in model.inner)
