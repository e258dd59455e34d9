"""Mixtures of experts: a token is charged the experts that it uses, and routes as the model routes it."""

import pytest
import replay
import tiny_models
import torch
from ready import ready
from test_families import Halved, Leaves, Pieces
from test_full_depth import LIMIT, decode, generate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.engine.flops.costs import Costs
from dlbench.errors import DlbenchError
from dlbench.method import Action
from dlbench.methods.llm_drop import LlmDrop
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap
from dlbench.models.experts import experts_of
from dlbench.models.families import resolve

DEPTH = 5
PROMPTS = tiny_models.prompts(5)
LIMITS = [11, 3, 8, 1, 11]
KEPT = (0, 1, 3)
DENSE, ROUTER, EXPERT, SMALL = (2 * 32 * n for n in (3 * 48, 4, 3 * 48, 3 * 24))
"""FLOPs of a feed-forward of width 48, of a router to four experts, and of one expert of width 48 or 24."""
MIXED = ROUTER + 2 * EXPERT
FEED_FORWARD = {
    "mixtral": [MIXED] * DEPTH,
    "qwen2_moe": [DENSE if i % 2 == 0 else ROUTER + 2 * SMALL + 2 * 32 * (3 * 40 + 1) for i in range(DEPTH)],
    "qwen3_moe": [DENSE if i == 2 else ROUTER + 2 * SMALL for i in range(DEPTH)],
    "olmoe": [MIXED] * DEPTH,
    "granitemoe": [MIXED] * DEPTH,
    "phimoe": [MIXED] * DEPTH,
    "glm4_moe": [DENSE, *[ROUTER + 3 * SMALL] * (DEPTH - 1)],
    "ernie4_5_moe": [DENSE, *[ROUTER + 3 * SMALL] * (DEPTH - 1)],
    "gpt_oss": [MIXED] * DEPTH,
}


def one_by_one(family):
    """In products that torch's counter counts."""
    return wrap(tiny_models.build(family, depth=DEPTH, attention="eager", experts="eager"), name=family)


@pytest.mark.parametrize("family", tiny_models.MIXTURES)
def test_a_token_costs_the_experts_that_it_uses(family):
    backbone = tiny_models.backbone(family, DEPTH)
    before = backbone.model.get_experts_implementation()
    costs = Costs(backbone)
    assert costs.parts[int(Action.MLP)].tolist() == FEED_FORWARD[family]
    assert (costs.parts == costs.executed_parts).all()
    assert backbone.model.get_experts_implementation() == before


@pytest.mark.parametrize("family", tiny_models.MIXTURES)
def test_decodes_as_the_model_and_as_the_model_without_layers(family):
    backbone = tiny_models.backbone(family, DEPTH)
    engine = Engine(backbone)
    assert engine.kernels == "stock" and family in engine.kernels_note
    expected = generate(backbone.model, PROMPTS)
    assert [g.tokens for g in decode(engine, PROMPTS)] == expected
    assert [decode(engine, [p])[0].tokens for p in PROMPTS] == expected  # whatever stands beside a row
    shorter = tiny_models.without(backbone, KEPT)
    if (types := getattr(shorter.config, "layer_types", None)) is not None:
        shorter.config.layer_types = [types[i] for i in KEPT]
    method = StaticSkip(only=KEPT)
    wave = engine.prefill([Request(str(i), p, LIMIT) for i, p in enumerate(PROMPTS)], method)
    assert [g.tokens for g in wave.decode(method)] == generate(shorter, PROMPTS)


@pytest.mark.parametrize("family", tiny_models.MIXTURES)
@pytest.mark.parametrize(("method", "kv"), [(Pieces(), "project"), (Pieces(), "evict"), (Leaves(), "recompute")])
def test_any_decisions_equal_their_replay(monkeypatch, family, method, kv):
    replay.check(monkeypatch, tiny_models.backbone(family, DEPTH), method, PROMPTS, LIMITS, tolerance=1e-4, kv=kv)


@pytest.mark.parametrize("family", tiny_models.MIXTURES)
def test_executed_equals_torch_and_credited_at_batch_1(family):
    engine = Engine(one_by_one(family), kernels="stock")
    requests = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))]
    for method, kv in ((Pieces(), "project"), (Leaves(), "recompute"), (Halved(), None), (ready(LlmDrop()), None)):
        with FlopCounterMode(display=False) as counter:
            written = engine.prefill(requests).decode(method, kv=kv)
        assert sum(g.executed + g.prompt_executed for g in written) == counter.get_total_flops() > 0
        (alone,) = engine.prefill(requests[:1]).decode(method, kv=kv)
        assert alone.prompt_flops == alone.prompt_executed
        assert kv == "recompute" or sum(alone.flops.values()) == alone.executed


@pytest.mark.parametrize("family", tiny_models.MIXTURES)
def test_half_layers_in_routed_prompts_are_a_model_without_those_halves(family):
    backbone, method = tiny_models.backbone(family, DEPTH), Halved()
    smaller = tiny_models.without(backbone, (0, 1, 2, 3))
    layers = resolve(smaller, backbone.family.layers)
    for index, left_out in ((1, Action.MLP), (2, Action.ATTN)):
        layers[index] = replay.without(backbone, layers[index], left_out)
    wave = Engine(backbone).prefill([Request(str(i), p, LIMIT) for i, p in enumerate(PROMPTS)], method)
    assert [g.tokens for g in wave.decode(method)] == generate(smaller, PROMPTS)
