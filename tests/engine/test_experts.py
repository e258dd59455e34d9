"""Mixtures of experts: a token is charged the experts that it uses, and routes as the model routes it."""

from dataclasses import replace
from functools import partial

import pytest
import replay
import tiny_models
import torch
import transformers
from test_families import Halved, Leaves, Pieces
from test_full_depth import LIMIT, decode, generate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.engine.flops.costs import Costs
from dlbench.errors import DlbenchError
from dlbench.method import Action
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import Backbone, wrap
from dlbench.models.experts import experts_of
from dlbench.models.families import FAMILIES, resolve

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
    requests = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS[:3], (6, 2, 4), strict=True))]
    for method, kv in ((Pieces(), "project"), (Leaves(), "recompute")):
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


def with_feed_forward(config, path):
    """A backbone of which only the feed-forwards are looked at."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "vocab_size": 61, "pad_token_id": 0}
    model = transformers.AutoModelForCausalLM.from_config(config(num_attention_heads=4, **sizes)).eval()
    family = replace(FAMILIES["llama"], mlp=(path,), fill=(), query=None)
    return Backbone("tiny", model, None, family, "float32", "", "")


def test_experts_that_are_computed_and_masked_are_executed_but_not_credited():
    """Llama 4 passes every token through all of its experts, weighted with zero where the router did not choose."""
    config = partial(transformers.Llama4TextConfig, num_local_experts=4, num_experts_per_tok=1, head_dim=8)
    shape = {"interleave_moe_layer_step": 2, "intermediate_size_mlp": 40, "num_key_value_heads": 2}
    backbone = with_feed_forward(partial(config, **shape), "feed_forward")
    costs, dense = Costs(backbone), 2 * 32 * 3 * 40
    assert costs.parts[int(Action.MLP)].tolist() == [dense, ROUTER + 2 * EXPERT, dense]  # one is shared
    assert (costs.executed_parts - costs.parts)[int(Action.MLP)].tolist() == [0, 3 * EXPERT, 0]
    assert (costs.executed_layer - costs.layer).tolist() == [0, 3 * EXPERT, 0]
    assert experts_of(backbone, 1).returns_tuple and experts_of(backbone, 0) is None


class Masked(nn.Module):
    """Computes every expert for every token, and adds the chosen one."""

    def __init__(self):
        super().__init__()
        self.router, self.weight = nn.Linear(32, 4), nn.Parameter(torch.ones(4, 32, 32) / 32)

    def forward(self, hidden):
        chosen = nn.functional.one_hot(self.router(hidden).argmax(-1), 4).to(hidden)
        return sum((hidden @ self.weight[i]) * chosen[..., i, None] for i in range(4))


@pytest.mark.parametrize(("method", "kv"), [(Pieces(), "project"), (Leaves(), "recompute")])
def test_masked_experts_are_told_apart_wherever_a_layer_runs(method, kv):
    model = tiny_models.build("mixtral", depth=DEPTH, attention="eager")
    model.config.num_experts_per_tok = 1
    for layer in model.model.layers:
        layer.mlp = Masked()
    engine, masked = Engine(wrap(model), kernels="stock"), 3 * 2 * 32 * 32
    with FlopCounterMode(display=False) as counter:
        (alone,) = engine.prefill([Request("a", PROMPTS[0], 11)]).decode(method, kv=kv)
    assert alone.prompt_executed + alone.executed == counter.get_total_flops()
    assert alone.prompt_executed - alone.prompt_flops == len(PROMPTS[0]) * DEPTH * masked
    if kv == "project":
        ran = sum(times * sum(bool(c & Action.MLP) for c in route) for route, times in alone.routes)
        assert alone.executed - sum(alone.flops.values()) == ran * masked
    else:
        assert alone.flops["kv"] > 0 and alone.executed - sum(alone.flops.values()) >= 10 * masked


def test_shared_and_routed_experts_of_deepseek():
    shape = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1}
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
    config = partial(transformers.DeepseekV3Config, moe_intermediate_size=24, n_shared_experts=2, **shape, **latent)
    costs = Costs(with_feed_forward(config, "mlp"))
    assert costs.parts[int(Action.MLP)].tolist() == [DENSE, *[ROUTER + 4 * SMALL] * 2]


def test_what_the_router_does_counts_not_what_the_configuration_says():
    """Phi-MoE takes two experts whatever `num_experts_per_tok` says."""
    model = tiny_models.build("phimoe", depth=2)
    model.config.num_experts_per_tok = model.model.layers[0].mlp.router.top_k = 3
    assert Costs(wrap(model)).parts[int(Action.MLP)].tolist() == [MIXED] * 2


def test_experts_in_a_list_are_counted_as_they_run():
    class Listed(nn.Module):
        """Each token goes through the expert that its first element chooses."""

        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

        def forward(self, hidden):
            out, chosen = torch.zeros_like(hidden), (hidden[..., 0] > 0).long()
            for number, expert in enumerate(self.experts):
                out[chosen == number] = expert(hidden[chosen == number])
            return out

    model = tiny_models.build("llama", depth=2)
    for layer in model.model.layers:
        layer.mlp = Listed()
    assert Costs(wrap(model)).parts[int(Action.MLP)].tolist() == [2 * 32 * 32] * 2


def test_tokens_that_use_differently_many_experts_cannot_be_counted():
    class Capacity(nn.Module):
        """An expert that takes one token, whatever the number of tokens."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 32, 32))

        def forward(self, hidden):
            return torch.cat([hidden[:, :1] @ self.weight[0], hidden[:, 1:]], 1)

    model = tiny_models.build("llama", depth=2)
    model.model.layers[1].mlp = Capacity()
    with pytest.raises(DlbenchError, match="feed-forward of layer 1 one token costs 2048 FLOPs and 3 tokens cost 2048"):
        Engine(wrap(model))
