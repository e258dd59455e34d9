"""Cached decoding of any decisions equals the same decisions replayed without a cache, for every method there is."""

import pytest
import replay
import tiny_models
import torch
from ready import ready

from dlbench.method import Action, Method
from dlbench.methods.calm import Calm
from dlbench.methods.oracle import SequenceOracle
from dlbench.methods.static_skip import StaticSkip
from dlbench.registry import methods as registry

DEPTH = 5
PROMPTS = tiny_models.prompts(6)
LIMITS = [12, 3, 9, 1, 12, 6]  # rows leave one after the other, one at once
TOLERANCE = {"float32": 1e-4, "float64": 1e-9}


class Chaos(Method):
    """Any mixture of running, skipping and leaving, as codes per token, as booleans and as one answer for all."""

    def route(self, view):
        u = view.uniform(2)
        whole = float(view.uniform(1, per="token").sum())  # the rows agree on how they answer, not on what
        kind = int(whole * 1000 + view.layer) % 5
        if kind == 0:
            return Action.RUN
        if kind == 1:
            return Action.SKIP
        run = u[:, 0] < 0.55
        if kind == 2:
            return run
        return torch.where(u[:, 1] < 0.08, int(Action.EXIT), run.to(torch.int64) * int(Action.RUN))


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize(("attention", "dtype"), [("sdpa", "float64"), ("sdpa", "float32"), ("eager", "float32")])
@pytest.mark.parametrize(("seed", "copied"), [(0, 1 << 40), (1, 0)], ids=["copies", "views"])
def test_any_decisions(monkeypatch, family, attention, dtype, seed, copied):
    monkeypatch.setattr("dlbench.engine.kv.storage._COPIED", copied)
    backbone = tiny_models.backbone(family, DEPTH, attention, dtype)
    written, runs = replay.check(monkeypatch, backbone, Chaos(), PROMPTS, LIMITS, seed=seed, tolerance=TOLERANCE[dtype])
    assert [len(g.tokens) for g in written] == LIMITS
    assert sum(g.flops["kv"] for g in written) > 0
    # Layers run again after they were skipped, layer 0 skipped, the last layer skipped, nothing run at all:
    sets = {tuple(ran) for ran in runs.values()}
    assert {0 in s for s in sets} == {DEPTH - 1 in s for s in sets} == {True, False} and len(sets) > 8


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_prompts_of_one_length_have_no_mask(monkeypatch, family):
    backbone = tiny_models.backbone(family, DEPTH, "sdpa", "float64")
    replay.check(monkeypatch, backbone, Chaos(), [p[-2:] for p in PROMPTS], LIMITS, tolerance=1e-9)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_one_row_alone(monkeypatch, family):
    backbone = tiny_models.backbone(family, DEPTH, "sdpa", "float64")
    replay.check(monkeypatch, backbone, Chaos(), PROMPTS[:1], [20], tolerance=1e-9)


@pytest.mark.parametrize("candidate", SequenceOracle().candidates(DEPTH), ids=lambda c: c.name)
def test_every_candidate_of_the_oracle(monkeypatch, candidate):
    backbone = tiny_models.backbone("llama", DEPTH, "sdpa", "float64")
    replay.check(monkeypatch, backbone, StaticSkip(only=candidate.layers), PROMPTS, LIMITS, tolerance=1e-9)


@pytest.mark.parametrize("decay", ["none", "paper", "code"])
@pytest.mark.parametrize(
    ("measure", "threshold"), [("top2", 0.2), ("top1", 0.4), ("classifier", 0.5), ("state", 0.965)]
)
def test_exits_that_really_happen(monkeypatch, measure, threshold, decay):
    backbone = tiny_models.backbone("llama", DEPTH, "sdpa", "float64")
    method = ready(Calm(threshold=threshold, measure=measure, decay=decay, check=(1, 2, 3, 4)), DEPTH)
    written, _ = replay.check(monkeypatch, backbone, method, PROMPTS, LIMITS, tolerance=1e-9)
    depths = {n for g in written for n in g.layers}
    assert len(depths) > 2 and max(depths) == DEPTH  # some leave, at different layers, and some don't


@pytest.mark.parametrize("params", [{"kind": "mlp"}, {"noisy": False}, {"fixed_input": True, "noisy": False}])
def test_routers_with_random_weights(monkeypatch, params):
    router = ready(registry.load("hidden_router").from_params(params), DEPTH)
    backbone = tiny_models.backbone("opt-projected", DEPTH, "sdpa", "float64")
    written, _ = replay.check(monkeypatch, backbone, router, PROMPTS, LIMITS, tolerance=1e-9)
    depths = {n for g in written for n in g.layers}
    assert min(depths) < DEPTH
    assert (len(depths) > 1) == (not params.get("fixed_input"))  # a constant without noise never varies


def test_a_wave_decoded_again_gives_the_same(monkeypatch):
    from dlbench.engine import Engine, Request

    backbone = tiny_models.backbone("llama", DEPTH, "sdpa", "float64")
    requests = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))]
    fresh = [Engine(backbone).prefill(requests).decode(m) for m in (None, Chaos(), StaticSkip(only=(1, 3)))]
    wave = Engine(backbone).prefill(requests)
    for _ in range(2):
        assert [wave.decode(m) for m in (None, Chaos(), StaticSkip(only=(1, 3)))] == fresh
