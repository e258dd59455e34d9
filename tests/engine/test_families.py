"""Every family with its variants: skipping, halves of layers and each kv policy, against plain references."""

import pytest
import replay
import tiny_models
import torch
from masked_keys import masked
from test_full_depth import LIMIT, decode, generate
from tiny_models import without
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.engine.kernels.fuse import NotFused, fuse
from dlbench.errors import DlbenchError
from dlbench.method import Action, Method
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.families import resolve

DEPTH = 5
PROMPTS = tiny_models.prompts(5)
LIMITS = [8, 3, 6, 1, 8]
ALIBI = ("falcon-alibi", "bloom")


class Pieces(Method):
    """Runs, skips, leaves and runs halves, as codes per token and as one answer for all."""

    kv = ("project", "evict")

    def route(self, view):
        u = view.uniform(2)
        kind = int(float(view.uniform(1, per="token").sum()) * 1000 + view.layer) % 6
        if kind < 2:
            return (Action.ATTN, Action.MLP)[kind]
        codes = torch.tensor([Action.RUN, Action.SKIP, Action.ATTN, Action.MLP, Action.RUN])[(u[:, 0] * 5).long()]
        return torch.where(u[:, 1] < 0.06, int(Action.EXIT), codes)


class Leaves(Method):
    """Exits at random, so that later tokens of the row run deeper."""

    kv = ("recompute", "project", "evict")

    def route(self, view):
        codes = torch.where(view.uniform()[:, 0] < 0.25, int(Action.EXIT), int(Action.RUN))
        return codes if view.layer else Action.RUN


class Halved(Method):
    """The same halves for every token."""

    @property
    def scope(self):
        return "static"

    def route(self, view):
        return (Action.RUN, Action.ATTN, Action.MLP, Action.RUN, Action.SKIP)[view.layer]


def tolerance(backbone):
    return 1e-9 if backbone.dtype == "float64" else 1e-4


def exact(family):
    """In float64 where the stock model can: eager with padding is not finite there."""
    attention = "eager" if family in tiny_models.EAGER_ONLY else "sdpa"
    return tiny_models.backbone(family, DEPTH, attention, "float32" if attention == "eager" else "float64")


def fusable(family):
    try:
        fuse(tiny_models.backbone(family, DEPTH))
    except NotFused:
        return False
    return True


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kernels", ["auto", "stock"])
def test_full_depth_equals_generate(family, attention, kernels):
    backbone = tiny_models.backbone(family, DEPTH, attention)
    written = decode(Engine(backbone, kernels=kernels), PROMPTS)
    assert [g.tokens for g in written] == generate(backbone.model, PROMPTS)


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize("layers", [(1, 3), (0, 2, 4)])
def test_routed_static_skip_equals_the_model_without_those_layers(family, layers):
    backbone = tiny_models.backbone(family, DEPTH)
    shorter = without(backbone, layers)
    for kernels in ("auto", "stock"):
        engine, method = Engine(backbone, kernels=kernels), StaticSkip(only=layers)
        wave = engine.prefill([Request(str(i), p, LIMIT) for i, p in enumerate(PROMPTS)], method)
        assert [g.tokens for g in wave.decode(method)] == generate(shorter, PROMPTS)
        full = engine.prefill([Request(str(i), p, LIMIT) for i, p in enumerate(PROMPTS)])
        assert wave.nbytes() * DEPTH == full.nbytes() * len(layers)  # no cache for a layer that never runs


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize("kv", ["project", "evict"])
def test_any_pieces(monkeypatch, family, kv):
    backbone = exact(family)
    _, ran = replay.check(monkeypatch, backbone, Pieces(), PROMPTS, LIMITS, tolerance=tolerance(backbone), kv=kv)
    assert len({tuple(layers) for layers in ran.values()}) > 5


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize("kv", ["recompute", "project", "evict"])
def test_exits(monkeypatch, family, kv):
    backbone = exact(family)
    written, ran = replay.check(monkeypatch, backbone, Leaves(), PROMPTS, LIMITS, tolerance=tolerance(backbone), kv=kv)
    assert len({len(layers) for layers in ran.values()}) > 3
    assert (sum(g.flops["kv"] for g in written) > 0) == (kv != "evict")


@pytest.mark.parametrize("family", [f for f in tiny_models.EVERY if f not in tiny_models.EAGER_ONLY])
@pytest.mark.parametrize(("method", "kv"), [(Pieces(), "project"), (Pieces(), "evict"), (Leaves(), "recompute")])
def test_fused_layers_do_the_same(monkeypatch, family, method, kv):
    if not fusable(family):
        pytest.skip("no fused step")
    backbone = tiny_models.backbone(family, DEPTH)
    replay.check(monkeypatch, backbone, method, PROMPTS, LIMITS, tolerance=1e-4, kv=kv, kernels="auto")


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize(
    ("method", "kv"), [(Pieces(), "project"), (Pieces(), "evict"), (Leaves(), "recompute"), (Halved(), None)]
)
def test_executed_equals_torch_and_credited_at_batch_1(family, method, kv):
    engine = Engine(tiny_models.backbone(family, DEPTH, "eager"), kernels="stock")
    requests = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))]
    wave = engine.prefill(requests)
    with FlopCounterMode(display=False) as counter:
        written = wave.decode(method, kv=kv)
    assert sum(g.executed for g in written) == counter.get_total_flops() > 0
    (alone,) = engine.prefill(requests[:1]).decode(method, kv=kv)
    if kv == "recompute":  # a past token is shown all columns, and credited those it had
        assert sum(alone.flops.values()) <= alone.executed
        return
    keys = masked(alone, engine.costs.windows) if kv == "evict" else 0
    assert alone.executed - sum(alone.flops.values()) == keys * int(engine.costs.attention_per_key[0])
    assert (keys > 0) == (kv == "evict")


@pytest.mark.parametrize("family", tiny_models.EVERY)
def test_halves_cost_their_share(family):
    engine = Engine(tiny_models.backbone(family, DEPTH))
    (g,) = engine.prefill([Request("a", PROMPTS[0], 6)]).decode(Halved())
    share = engine.costs.parts[int(Action.ATTN)] / engine.costs.layer
    assert share.min() > 0.1 and share.max() < 0.9
    assert g.layers == pytest.approx([2 + share[1] + 1 - share[2]] * 5)


@pytest.mark.parametrize("family", ["llama", "gemma3", "opt", "gpt_neox", "falcon-40b", "bloom"])
def test_half_layers_in_routed_prompts_are_a_model_without_those_halves(family):
    check_routed_halves(tiny_models.backbone(family, DEPTH))


def check_routed_halves(backbone):
    """Hold texts against those of a model that has two layers without one of their halves."""
    method, smaller = Halved(), without(backbone, (0, 1, 2, 3))
    layers = resolve(smaller, backbone.family.layers)
    for index, left_out in ((1, Action.MLP), (2, Action.ATTN)):
        layers[index] = replay.without(backbone, layers[index], left_out)
    wave = Engine(backbone).prefill([Request(str(i), p, LIMIT) for i, p in enumerate(PROMPTS)], method)
    assert [g.tokens for g in wave.decode(method)] == generate(smaller, PROMPTS)


def test_recompute_is_for_exits():
    wave = Engine(tiny_models.backbone("llama", DEPTH)).prefill([Request("a", PROMPTS[0], 9)])
    skips = RandomSkip(share=0.5)
    with pytest.raises(DlbenchError, match="RandomSkip does not support kv policy 'recompute'"):
        wave.decode(skips, kv="recompute")
    monkey = type("Skips", (RandomSkip,), {"kv": ("recompute",)})
    with pytest.raises(DlbenchError, match="for methods that exit"):
        wave.decode(monkey(share=0.5))


def test_an_evicted_position_is_never_attended_to():
    """Whatever stands at an evicted position, the text is the same; and it is another one than with `project`."""
    engine = Engine(tiny_models.backbone("llama", DEPTH), kernels="stock")
    wave = engine.prefill([Request("a", PROMPTS[0], 12), Request("b", PROMPTS[2], 12)])
    plain = wave.decode(Pieces(), kv="evict")
    with torch.inference_mode():
        for x in wave.chunks[0].cache.memory:
            x[:, :, wave.columns :] = 1e4  # what decoding finds where it writes nothing
    assert wave.decode(Pieces(), kv="evict") == plain
    assert [g.tokens for g in wave.decode(Pieces(), kv="project")] != [g.tokens for g in plain]
