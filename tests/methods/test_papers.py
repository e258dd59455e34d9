"""Learned gates against their authors' formulas, written out here: losses, schedules, layouts and what is spared."""

import math

import numpy as np
import pytest
import replay
import tiny_models
import torch
import toy_task
from fake_view import FakeView
from ready import ready

from dlbench.engine import Engine, Request
from dlbench.fit import FitProbe, router_training
from dlbench.fit.router_training import SoftGates
from dlbench.method import Action, Method, Route, Router
from dlbench.methods.d_llm import DLlm
from dlbench.methods.flexi_depth import FlexiDepth
from dlbench.methods.mind_skip import MindSkip
from dlbench.models.backbone import wrap
from dlbench.models.layer_patch import shadowed, state_of
from dlbench.prompting.teacher_forcing import Example, Parted

DEPTH, WIDTH = 6, 32


class Planned(torch.nn.Module):
    """Gates that are open where a plan says so, by layer and by how many tokens of the text were asked before."""

    def __init__(self, plan):
        super().__init__()
        self.plan = torch.nn.ParameterDict({str(layer): torch.tensor(x) for layer, x in plan.items()})

    def forward(self, hidden, layer):
        return self.plan[str(layer)].expand(hidden.shape[:-1])


@pytest.fixture(scope="module")
def backbone():
    return wrap(tiny_models.build("llama", depth=DEPTH), toy_task.Characters())


@pytest.fixture(scope="module")
def documents(backbone):
    return toy_task.documents(backbone.model, 12)


# ---- D-LLM


def authors_activity(executed, routed, target):
    """The authors' loss on a batch: activation [rows, tokens, layers], 1 where a token ran a layer, and its mask."""
    loss = (executed.mean(-1) - target).abs() * routed
    return loss.sum() / routed.sum()


@pytest.mark.parametrize(("target", "warm_up"), [(0.5, 2), (0.6, 0), (0.75, 4)])
def test_d_llm_weighs_each_token_by_itself(backbone, target, warm_up):
    """A text that runs much and one that runs little are both far from the target, whatever they are together."""
    texts = [Example([5, 6, 7], [8, 9, 10, 11, 12, 13, 4]), Example([9], [7, 6, 5]), Example([3, 4], [12, 11, 10, 9])]
    batch = Parted.of(texts)
    states = torch.Generator().manual_seed(1)
    plan = {
        i: torch.where(torch.rand(batch.ids.shape, generator=states) < 0.5, 9.0, -9.0).tolist() for i in range(2, 6)
    }
    router = DLlm(warm_up=warm_up)
    router._module = Planned(plan)
    gates = SoftGates(backbone, router, batch, noise=False)
    gates.logits()
    executed = torch.ones(*batch.ids.shape, DEPTH)  # the first two layers always run, and count
    for layer, scores in plan.items():
        executed[..., layer] = (torch.tensor(scores) > 0).float()
    lengths = torch.tensor([[len(t.prompt)] for t in texts])
    position = lengths + torch.arange(batch.ids.shape[1])
    mask = batch.mask * (position >= warm_up)
    found = router_training._cost(gates, "absolute", target).item()
    assert found == pytest.approx(float(authors_activity(executed, mask, target)), rel=1e-5)
    # the mean of the batch, which the rule does not look at, is another number
    assert abs(found - abs(float((executed.mean(-1) * mask).sum() / mask.sum()) - target)) > 0.01


def test_d_llm_learns_with_a_weight_that_rises(backbone, documents, monkeypatch):
    """λ = 5·sin(π/2 · step / steps), from 0; AdamW's rate is 0 here, so that losses differ by their weights alone."""
    costs, entropies = [], []
    cost, entropy = router_training._cost, torch.nn.functional.cross_entropy
    monkeypatch.setattr(router_training, "_cost", lambda *a: costs.append(cost(*a)) or costs[-1])
    monkeypatch.setattr(
        router_training.nn.functional,
        "cross_entropy",
        lambda *a, **k: entropies.append(entropy(*a, **k)) or entropies[-1],
    )
    found = []

    class Probe(FitProbe):
        def train(self, router, **options):
            assert (options["weight"], options["rises"], options["cost"], options["share"]) == (
                5.0,
                True,
                "absolute",
                0.4,
            )
            found.extend(super().train(router, **options))
            return found

    DLlm(steps=8, lr=0.0, inner=8).fit(Probe(backbone, toy_task.Scored(), documents, [], budget=0.4))
    weights = [(loss - ce.item()) / a.item() for loss, ce, a in zip(found, entropies, costs, strict=True)]
    expected = [5 * math.sin(math.pi / 2 * step / 8) for step in range(8)]
    assert weights[0] == pytest.approx(0, abs=1e-4) and weights == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert weights == sorted(weights) and 4.8 < weights[-1] < 5


@pytest.mark.parametrize("length", [1, 2, 3, 9])
def test_d_llm_spares_the_first_tokens_of_the_sequence(length):
    """Positions 0 and 1 of the sequence, which a prompt of two tokens or more holds both."""
    router = ready(DLlm(inner=8, threshold=1e9), DEPTH)  # nobody runs a gated layer who needs not
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    (written,) = engine.prefill([Request("a", tuple(range(5, 5 + length)), 6)]).decode(router)
    spared = max(0, 2 - length)
    assert written.layers == [DEPTH] * spared + [2] * (5 - spared)
    view = FakeView(layer=3, depth=DEPTH, rows=4, hidden=torch.zeros(4, WIDTH), position=torch.arange(4))
    assert router.route(view).tolist() == [Action.RUN, Action.RUN, Action.SKIP, Action.SKIP]


def test_d_llm_is_deterministic_in_use_and_as_the_authors_build_it():
    gate = DLlm().module(5, WIDTH).gates[0]
    kinds = [type(layer).__name__ for layer in gate]
    assert kinds == ["Linear", "RMSNorm", "SiLU", "Linear"]
    assert gate[3].bias.tolist() == pytest.approx([0.1, 2.0]) and gate[0].out_features == 512
    assert len(DLlm().module(5, WIDTH).gates) == 3 and DLlm().noise(FakeView()) == 0.0


# ---- MindSkip


@pytest.mark.parametrize(
    ("depth", "share", "layers"),
    [
        (32, 0.5, range(15, 31)),
        (28, 16 / 28, range(11, 27)),
        (16, 0.5, range(7, 15)),
        (5, 1.0, range(4)),
        (2, 0.5, [0]),
    ],
)
def test_mind_skip_gates_deep_layers_and_never_the_last(depth, share, layers):
    """The authors' rule with R router layers: layer i has one where L - R - 1 <= i < L - 1; R is 16 of 28 or 32."""
    authors = [i for i in range(depth) if i >= depth - min(round(share * depth), depth - 1) - 1 and i < depth - 1]
    for per in ("sequence", "token"):
        router = MindSkip(per=per, gated_share=share)
        assert router.gated(depth) == frozenset(layers) == frozenset(authors)
        assert len(router.module(depth, 8).gates) == len(layers)
        assert depth - 1 not in router.gated(depth)


def test_mind_skip_has_no_bias_and_begins_as_a_linear_map_does():
    torch.manual_seed(0)
    router = MindSkip(per="token")
    for gate in router.module(16, 160).gates:
        assert gate.bias is None and gate.weight.shape == (1, 160)
        weights = gate.weight.detach()
        assert float(weights.abs().max()) <= 1 / math.sqrt(160)
        assert float(weights.std()) == pytest.approx(1 / math.sqrt(3 * 160), rel=0.2)


def test_mind_skip_reads_what_attention_reads(backbone):
    """RMSNorm with a gain g under weights v is the map v·g of the state scaled to a mean square of 1."""
    norm = backbone.layers[3].input_layernorm
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.2, 3, WIDTH))
    states = (
        torch.randn(4, 7, WIDTH, generator=torch.Generator().manual_seed(3))
        * torch.tensor([1e3, 1, 9, 0.1])[:, None, None]
    )
    v = torch.randn(1, WIDTH, generator=torch.Generator().manual_seed(4))
    for per in ("token", "sequence"):
        router = MindSkip(per=per, gated_share=1.0)
        gate = router.module(DEPTH, WIDTH).gates[3]
        with torch.no_grad():
            gate.weight.copy_(v * norm.weight)
        if per == "token":
            found, expected = router.score(states, 3, DEPTH), (norm(states) @ v.T)[..., 0]
        else:
            prompts = tiny_models.prompts(4)
            wave = Engine(backbone).prefill([Request(str(i), p, 2) for i, p in enumerate(prompts)], reads={3})
            found = router.score(router.summary(wave.states, 3), 3, DEPTH)
            expected = torch.stack([(norm(state_before(backbone, p, 3)).mean(0) @ v.T)[0] for p in prompts])
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def state_before(backbone, prompt, layer):
    seen = []
    handle = backbone.layers[layer].register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    with torch.inference_mode():
        backbone.model(torch.tensor([list(prompt)]))
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("per", ["token", "sequence"])
def test_mind_skip_learns_what_it_will_do(backbone, documents, per, monkeypatch):
    """No noise in training: the same batch gives the same gates, cut at 0.5, with the gradient of the sigmoid."""
    options = {}
    monkeypatch.setattr(FitProbe, "train", lambda self, router, **more: options.update(more))
    MindSkip(per=per).fit(FitProbe(backbone, toy_task.Scored(), documents, [], budget=0.9))
    assert options["noise"] is False and options["share"] == 0.9
    monkeypatch.undo()
    router = ready(MindSkip(per=per), DEPTH)
    router.module(DEPTH, WIDTH).requires_grad_(True)
    batch = Parted.of([Example([5, 6, 7], [8, 9, 10, 11]), Example([9, 4], [7, 6, 5])])
    kept = []
    for _ in range(2):
        gates = SoftGates(backbone, router, batch, noise=False)
        gates.logits()
        kept.append(torch.stack(gates.kept))
        assert kept[-1].detach().round().allclose(kept[-1])
    assert torch.equal(*kept) and 0 < kept[0].mean().item() < 1
    recorded = replay.Recorded(router)
    requests = [Request(str(i), e, n) for i, (e, n) in enumerate([((5, 6, 7), 4), ((9, 4), 3)])]
    wave = Engine(backbone).prefill(requests, reads=router.reads(DEPTH))
    if per == "sequence":  # decided by the prompt: whatever is written, it is what training saw
        codes = {row: route for row, g in enumerate(wave.decode(recorded)) for route, _ in g.routes}
        for number, layer in enumerate(sorted(router.gated(DEPTH))):
            for row in range(2):
                assert bool(kept[0][number, row, 0] > 0.5) == bool(codes[row][layer] & Action.ATTN)
    kept[0].sum().backward()
    gradients = [gate.weight.grad for gate in router.module(DEPTH, WIDTH).gates]
    assert all(bool(g.abs().max() > 0) for g in gradients)


def test_what_reads_no_positions_is_not_asked_for_them():
    class Plain(Router):
        def build(self, depth, width):
            return Planned({1: [1.0]})

        def gated(self, depth):
            return frozenset({1})

    view = FakeView(layer=1, rows=1, hidden=torch.zeros(1, WIDTH))  # it shows no position
    assert Plain().route(view).tolist() == [Action.RUN]
    assert np.isfinite(view.close[0].item())


# ---- FlexiDepth


def flexi_layer(layer, states, router, adapter):
    """The paper's layer, of one token after another: g·layer(x) where g > 0.5, (1 - g)·adapter(x) where not, beside x.

    Router: tanh(norm(norm(x) A)) B C under a sigmoid; adapter: (silu(norm(x) G) * norm(x) U) D.
    """

    def norm(x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    first, gain, second, last = router[1].weight, router[2].weight, router[4].weight, router[5].weight
    gate = torch.sigmoid(((norm(norm(states) @ first.T) * gain).tanh() @ second.T @ last.T)[..., 0])
    x = norm(states)
    added = (torch.nn.functional.silu(x @ adapter.gate.weight.T) * (x @ adapter.up.weight.T)) @ adapter.down.weight.T
    open_ = (gate > 0.5)[..., None]
    scaled = torch.where(open_, gate[..., None] * (layer - states), (1 - gate[..., None]) * added)
    return states + scaled, open_[..., 0], gate


def test_flexi_depth_scales_the_adapter_by_what_is_left_of_the_gate(backbone, documents, monkeypatch):
    """In training, the states that leave a gated layer are the paper's; in use, the replay under the same scales."""
    router = ready(FlexiDepth(), DEPTH)
    batch = Parted.of([Example([5, 6, 7], [8, 9, 10, 11, 4]), Example([9, 4], [7, 6, 5])])
    gates = SoftGates(backbone, router, batch, noise=False)
    seen = []

    def around(index, forward, hidden, *args, **kwargs):
        given = forward(hidden, *args, **kwargs)  # the stock layer; what the gates made of it enters the next one
        seen.append((index, hidden, state_of(given)))
        return given

    with torch.no_grad(), shadowed(dict(enumerate(backbone.layers)), around):
        gates.logits()
    decoding = seen[DEPTH:]
    module, there = router.module(DEPTH, WIDTH), batch.mask.bool()
    values = []
    for layer in (3, 4):
        (_, states, stock), (_, left, _) = decoding[layer], decoding[layer + 1]
        expected, open_, gate = flexi_layer(stock, states, module.routers[layer - 3], module.adapters[layer - 3])
        torch.testing.assert_close(left[there], expected[there], rtol=1e-4, atol=1e-5)
        assert torch.equal(gates.kept[layer - 3][there] > 0.5, open_[there])
        values += gate[there].tolist()
    assert min(values) < 0.5 < max(values)


@pytest.mark.parametrize("threshold", [0.0, -0.5, 0.5, 99.0])
def test_flexi_depth_answers_with_the_scale_of_the_way_that_a_token_takes(threshold):
    router = ready(FlexiDepth(), DEPTH)
    with torch.no_grad():
        router.module(DEPTH, WIDTH).routers[1][5].weight.mul_(100)
    router.threshold = threshold
    states = torch.randn(9, WIDTH, generator=torch.Generator().manual_seed(2))
    answer = router.route(FakeView(layer=4, depth=DEPTH, rows=9, hidden=states))
    _, _, gate = flexi_layer(states, states, router.module(DEPTH, WIDTH).routers[1], router.bypass(4))
    runs = torch.logit(gate.detach()) >= threshold
    assert answer.codes.tolist() == [int(Action.RUN) if run else int(Action.SKIP) for run in runs]
    torch.testing.assert_close(answer.scale, torch.where(runs, gate, 1 - gate).detach(), rtol=1e-4, atol=1e-5)
    assert len(set(answer.codes.tolist())) == (1 if threshold == 99.0 else 2)


def test_flexi_depth_is_built_as_the_authors_build_it():
    module = FlexiDepth().module(8, 64)
    assert len(module.routers) == len(module.adapters) == 4 and module.first == 4
    kinds = [type(part).__name__ for part in module.routers[0]]
    assert kinds == ["RMSNorm", "Linear", "RMSNorm", "Tanh", "Linear", "Linear"]
    assert [(p.in_features, p.out_features) for p in module.routers[0] if hasattr(p, "in_features")] == [
        (64, 4), (4, 64), (64, 1)
    ]  # fmt: skip
    assert not any(name.endswith("bias") for name, _ in module.named_parameters())
    llama = FlexiDepth().module(2, 4096).adapters[0]
    assert llama.gate.out_features == 14336 // 16  # of Llama-3-8B: a sixteenth of its feed-forward


def test_flexi_depth_learns_with_gates_that_are_not_sampled(backbone, documents, monkeypatch):
    options = {}
    monkeypatch.setattr(FitProbe, "train", lambda self, router, **more: options.update(more))
    FlexiDepth().fit(FitProbe(backbone, toy_task.Scored(), documents, [], budget=0.8))
    assert options["noise"] is False and options["share"] == 0.8


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon-7b"])
def test_a_bypass_is_scaled_in_decoding(monkeypatch, family):
    """What a skipped token has instead of the layer is multiplied by the answer's scale, alone and in mixed batches."""

    class Scaled(Method):
        kv = ("project",)
        module = torch.nn.Linear(WIDTH, WIDTH)

        def bypass(self, layer):
            return self.module if layer % 2 else None

        def route(self, view):
            u = view.uniform(2)
            return Route(u[:, 0] < 0.5, scale=(0.1 + u[:, 1]).float())

    backbone = tiny_models.backbone(family, DEPTH)
    torch.manual_seed(0)
    Scaled.module = torch.nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    prompts, limits = tiny_models.prompts(5), [9, 3, 7, 1, 9]
    replay.check(monkeypatch, backbone, Scaled(), prompts, limits, tolerance=1e-4)
    replay.check(monkeypatch, backbone, Scaled(), prompts[:1], [12], tolerance=1e-4)
