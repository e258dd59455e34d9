"""The step around the layers: it stands in where it proves equal to the stock model's, and nowhere else."""

import numpy as np
import pytest
import tiny_models
import torch
from test_fused_layer import FUSED, build

from dlbench.engine import Engine, Request
from dlbench.engine.kernels.fuse import fuse
from dlbench.engine.kernels.fused_model import FusedModel, NotFusedModel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FUSED)
def test_every_fused_family_has_one(family, dtype):
    engine = Engine(build(family, dtype=dtype))
    projected = family == "opt-projected"
    assert (engine.runtime.fused_model is None) == projected
    assert engine.kernels_note == ("there is a projection between embedding and layers" if projected else "")


@pytest.mark.parametrize("family", FUSED)
def test_logits_of_every_step_are_the_stock_forwards(family):
    backbone = build(family)
    requests = [Request(str(i), ids, 9, ()) for i, ids in enumerate(tiny_models.prompts(4))]
    steps = {}
    for name in ("stack", "forward"):
        engine = Engine(backbone)
        if name == "forward":
            engine.runtime.fused_model = None
        wave, found = engine.prefill(requests), []

        def noted(*args, into=found, forward=wave.forward, **kwargs):
            into.append(forward(*args, **kwargs))
            return into[-1]

        wave.forward = noted
        texts = [g.tokens for g in wave.decode()]
        steps[name] = texts, found
    assert steps["stack"][0] == steps["forward"][0]
    assert len(steps["stack"][1]) == 8
    for ours, theirs in zip(steps["stack"][1], steps["forward"][1], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_angles_of_an_unknown_kind_are_refused():
    backbone = build("llama")
    backbone.model.config.rope_parameters = {**backbone.model.config.rope_parameters, "rope_type": "axial"}
    with pytest.raises(NotFusedModel, match="rotary angles of type axial"):
        FusedModel(backbone, fuse(backbone))


def scaled_logits(model, patch):
    inner = type(model).forward

    def forward(self, *args, **kwargs):
        out = inner(self, *args, **kwargs)
        out.logits = out.logits * 2
        return out

    patch.setattr(type(model), "forward", forward)


def moved_angles(model, patch):
    rotary = type(model.model.rotary_emb)
    inner = rotary.forward

    def forward(self, x, position_ids):
        return inner(self, x, position_ids + (position_ids.shape[1] == 1))

    patch.setattr(rotary, "forward", forward)


def scaled_states(model, patch):
    model.model.layers[0].register_forward_pre_hook(lambda _, args: (args[0] * 1.01, *args[1:]))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (scaled_logits, "the logits are"),
        (moved_angles, "the angles of layer 0 are"),
        (scaled_states, "the state before the layers is"),
    ],
)
def test_a_model_that_does_more_around_its_layers_is_refused(change, what, monkeypatch):
    backbone = build("llama")
    layers = fuse(backbone)
    change(backbone.model, monkeypatch)
    with pytest.raises(NotFusedModel, match=f"^{what}"):
        FusedModel(backbone, layers)


def test_refused_models_decode_by_their_own_forward():
    backbone = build("llama")
    expected = Engine(backbone).prefill([Request("a", (5, 6, 7), 6, ())]).decode()[0].tokens
    backbone.model.config.rope_parameters = {**backbone.model.config.rope_parameters, "rope_type": "axial"}
    engine = Engine(backbone)
    assert engine.kernels == "fused" and engine.runtime.fused_model is None and "axial" in engine.kernels_note
    assert engine.prefill([Request("a", (5, 6, 7), 6, ())]).decode()[0].tokens == expected
