"""Trained gates: where they stand, what they see, and that they learn which layers do nothing."""

import numpy as np
import pytest
import tiny_models
import torch
import toy_task
from fake_view import FakeView
from ready import ready

from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.fit import Facts, FitProbe, load_artifact, save_artifact
from dlbench.method import Action
from dlbench.methods.d_llm import DLlm
from dlbench.methods.flexi_depth import FlexiDepth
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.mind_skip import MindSkip
from dlbench.models.backbone import wrap

DEPTH, WIDTH = 6, 32
PLANTED = {2, 4}
"""Layers that add nothing."""


@pytest.fixture(scope="module")
def planted():
    """A backbone with identity layers, and a fit set that it continues at full depth."""
    model = tiny_models.build("llama", depth=DEPTH)
    with torch.no_grad():
        for i in PLANTED:
            for module in (model.model.layers[i].self_attn.o_proj, model.model.layers[i].mlp.down_proj):
                module.weight.zero_()
                module.bias.zero_()
        model.lm_head.weight.mul_(2)  # sure of what it writes, so that a missing layer costs
    return wrap(model, toy_task.Characters()), toy_task.documents(model, 24)


def fitted(planted, budget=4 / DEPTH, **params):
    backbone, documents = planted
    router = HiddenRouter(steps=40, lr=0.1, **params)
    if params.get("fixed_input"):
        router.lr = 0.02  # ones in every place: a small step in each of them is a large one in the sum
    losses = []

    class Probe(FitProbe):
        def train(self, *args, **kwargs):
            losses.extend(super().train(*args, **kwargs))
            return losses

    router.fit(Probe(backbone, toy_task.Scored(), documents, [], budget=budget))
    return router, losses


@pytest.mark.parametrize("params", [{}, {"fixed_input": True}, {"kind": "mlp"}, {"alpha": 1.0}])
def test_learns_to_skip_the_layers_that_do_nothing(planted, params):
    router, losses = fitted(planted, **params)
    assert len(losses) == 40 and sum(losses[-5:]) < (0.9 if "alpha" in params else 0.7) * sum(losses[:5])
    assert router.tuned == ("alpha" not in params)
    router.noisy = False
    ran = ran_by(planted, router)
    assert set(ran) == {1, 2, 3, 4}
    assert max(ran[i] for i in PLANTED) < 0.35 and min(ran[1], ran[3]) > 0.65


def ran_by(planted, router):
    """How often each gated layer ran, by free-running texts."""
    backbone, documents = planted
    requests = [Request(d.id, tuple(backbone.tokenizer(d.prompt + " ")["input_ids"]), 6) for d in documents]
    written = Engine(backbone).prefill(requests, reads=router.reads(DEPTH)).decode(router)
    routes = [route for g in written for route, times in g.routes for _ in range(times)]
    part = int(router.part)
    return {i: sum(route[i] & part == part for route in routes) / len(routes) for i in router.gated(DEPTH)}


@pytest.mark.parametrize(
    "router",
    [
        DLlm(steps=40, lr=0.01, inner=32, first=1, warm_up=0),
        FlexiDepth(steps=60, lr=0.02, gated_share=5 / 6),
        MindSkip(per="token", steps=40, lr=0.1, gated_share=4 / 6),
        MindSkip(per="sequence", steps=40, lr=0.1, gated_share=4 / 6),
    ],
    ids=lambda r: f"{type(r).__name__}-{getattr(r, 'per', '')}".removesuffix("-"),
)
def test_other_routers_learn_it_as_well(planted, router):
    router = type(router).from_params(router.params())
    backbone, documents = planted
    costs = Engine(backbone).costs
    half = float(costs.parts[int(router.part)][0] / costs.layer[0])
    budget = 1 - 2 * half / DEPTH
    router.fit(FitProbe(backbone, toy_task.Scored(), documents, [], budget=budget))
    ran = ran_by(planted, router)
    others = [share for layer, share in ran.items() if layer not in PLANTED]
    assert max(ran[i] for i in PLANTED) < 0.4 and np.mean(others) > 0.6


def test_gates_stand_on_all_layers_but_the_first_and_the_last():
    assert HiddenRouter().gated(16) == frozenset(range(1, 15))
    router = HiddenRouter(threshold=1e9, noisy=False)
    (g,) = Engine(tiny_models.backbone("llama", 5)).prefill([Request("a", (5, 6), 4)]).decode(router)
    assert g.layers == [2, 2, 2]
    for layer in (0, 4):
        assert router.route(FakeView(layer=layer, depth=5)) == Action.RUN


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_learned_constant_ignores_the_state(kind):
    torch.manual_seed(0)
    states = torch.randn(2, 7, WIDTH)
    constant, free = HiddenRouter(fixed_input=True, kind=kind), HiddenRouter(kind=kind)
    a, b = (constant.module(DEPTH, WIDTH)(x, 2) for x in states)
    assert torch.equal(a, b) and torch.equal(a, a[:1].expand(7))
    assert not torch.equal(constant.module(DEPTH, WIDTH)(states[0], 3), a)  # one rate per layer
    seen = free.module(DEPTH, WIDTH)(states[0], 2)
    assert len(set(seen.tolist())) == 7


def test_the_share_rises_along_the_knob():
    torch.manual_seed(0)
    for noisy in (True, False):
        router = HiddenRouter(noisy=noisy)
        knob = router.knob
        view = FakeView(layer=2, depth=DEPTH, rows=200, hidden=torch.randn(200, WIDTH))
        before = None
        for i in range(21):
            router.threshold = knob.low + (knob.high - knob.low) * i / 20
            run = router.route(view) == Action.RUN
            assert before is None or bool((run >= before).all())
            if i in (0, 20):
                assert run.float().mean() == (i == 20)
            before = run


def test_noise_is_logistic():
    """Gumbel noise on two logits: the gate is open with the probability sigmoid(score)."""
    router = HiddenRouter()
    view = FakeView(layer=2, depth=DEPTH, rows=20_000, hidden=torch.zeros(20_000, WIDTH))
    gate = router.module(DEPTH, WIDTH).gates[1]
    for keep in (-2.0, 0.0, 1.0):
        with torch.no_grad():
            gate.bias.copy_(torch.tensor([keep, 0.0]))
        share = float((router.route(view) == Action.RUN).float().mean())
        assert share == pytest.approx(float(torch.tensor(keep).sigmoid()), abs=0.02)
    assert HiddenRouter(noisy=False).noise(view) == 0.0


@pytest.mark.parametrize("params", [{}, {"kind": "mlp", "fixed_input": True, "noisy": False, "threshold": 0.25}])
def test_weights_go_through_an_artifact(tmp_path, params):
    torch.manual_seed(0)
    router = HiddenRouter(**params)
    router.module(DEPTH, WIDTH)
    known = Facts("hidden_router", "toy", seed=0, budget=0.5, realised=0.49)
    save_artifact(tmp_path / "fit", router, known)
    assert (tmp_path / "fit" / "weights.safetensors").is_file()
    again, facts = load_artifact(tmp_path / "fit", HiddenRouter)
    assert again.params() == router.params() and facts == known
    assert {k: v.tolist() for k, v in again.weights().items()} == {k: v.tolist() for k, v in router.weights().items()}
    wave = Engine(tiny_models.backbone("llama", DEPTH)).prefill([Request("a", (5, 6, 7), 9)])
    assert wave.decode(again) == wave.decode(router)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_serves_backbones_of_any_dtype(dtype):
    torch.manual_seed(0)
    wave = Engine(tiny_models.backbone("llama", DEPTH, dtype=dtype)).prefill([Request("a", (5, 6, 7), 5)])
    (g,) = wave.decode(HiddenRouter())
    assert len(g.tokens) == 5 and set(g.layers) != {DEPTH}


def test_learns_from_a_bfloat16_backbone(planted):
    backbone, documents = planted
    half = wrap(tiny_models.build("llama", depth=DEPTH, dtype=torch.bfloat16), backbone.tokenizer)
    router = HiddenRouter(steps=2)
    router.fit(FitProbe(half, toy_task.Scored(), documents[:6], [], budget=0.5))
    assert all(bool(torch.isfinite(w).all()) for w in router.weights().values())


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"kind": "deep"}, "kind must be linear or mlp, not 'deep'"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
    ],
)
def test_bad_parameters_are_refused(params, said):
    with pytest.raises(ValueError, match=said):
        HiddenRouter(**params)


def test_what_the_others_always_run():
    assert DLlm().kv == ("evict", "project") and DLlm().gated(16) == frozenset(range(2, 16))
    assert FlexiDepth().gated(16) == frozenset(range(8, 16)) and FlexiDepth().bypass(9) is None
    module = DLlm().module(5, WIDTH)
    assert module.gates[0][3].bias.tolist() == pytest.approx([0.1, 2.0]) and module.gates[0][0].out_features == 512
    flexi = FlexiDepth()
    adapter = flexi.module(8, WIDTH) and flexi.bypass(5)
    assert adapter is not None and not bool(adapter(torch.randn(3, WIDTH)).any())  # adds nothing at first


def test_a_sequence_is_gated_once_by_its_prompt():
    """The decision follows from the prompt alone: it is the same for all tokens, and differs from text to text."""
    router = ready(MindSkip(per="sequence"), DEPTH)
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    several = [Request(str(i), p, 8) for i, p in enumerate(tiny_models.prompts(12))]
    with pytest.raises(DlbenchError, match=r"were not kept; a method names it in reads"):
        engine.prefill(several).decode(router)
    written = engine.prefill(several, reads=router.reads(DEPTH)).decode(router)
    assert all(len(g.routes) == 1 for g in written) and len({g.routes[0][0] for g in written}) > 2
    with pytest.raises(DlbenchError, match="read at full depth"):
        engine.prefill(several, router)
