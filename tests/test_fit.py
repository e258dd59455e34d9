"""Fitting: which documents are learnt from, what is trained through the soft gates, how a knob meets its budget."""

import json
import math

import numpy as np
import pytest
import replay
import tiny_models
import torch
import toy_task

from dlbench.backbones import wrap
from dlbench.engine import Engine
from dlbench.engine.noise import key_of
from dlbench.errors import DlbenchError
from dlbench.fit import FitProbe, SoftGates, find_artifact, halves, load_artifact, requests, save_artifact, tune
from dlbench.method import Action
from dlbench.methods.confidence_exit import ConfidenceExit
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.task import Document
from dlbench.teacher import example

DEPTH, WIDTH = 5, 32


@pytest.fixture(scope="module")
def backbone():
    return wrap(tiny_models.build("llama", depth=DEPTH), toy_task.Characters())


@pytest.fixture(scope="module")
def documents(backbone):
    return toy_task.documents(backbone.model, 12)


def constant(scores):
    """A router whose gates of layers 1, 2, … have these scores, whatever the state."""
    router = HiddenRouter(noisy=False)
    with torch.no_grad():
        for gate, score in zip(router.module(DEPTH, WIDTH).gates, scores, strict=True):
            gate.weight.zero_()
            gate.bias.copy_(torch.tensor([score, 0.0]))
    return router


def named(*ids):
    return [Document(i, "x", ("y",), 4, (), n, None, "fit") for n, i in enumerate(ids)]


def test_seventy_per_cent_are_learnt_from_by_id():
    everything = named(*(f"document-{i}" for i in range(1000)))
    learn, rest = halves(everything)
    assert 650 < len(learn) < 750
    assert sorted(d.index for d in learn + rest) == list(range(1000))
    assert all(key_of(d.id) / 2**64 < 0.7 for d in learn) and all(key_of(d.id) / 2**64 >= 0.7 for d in rest)
    few, _ = halves(everything[::-7])
    assert {d.id for d in few} == {d.id for d in learn} & {d.id for d in everything[::-7]}


def test_without_anything_that_fits_the_context_nothing_is_learnt(backbone):
    longer = Document("b", "A" * 99, ("B" * 50,), 4, (), 0, None, "fit")
    with pytest.raises(DlbenchError, match="nothing to learn from"):
        FitProbe(backbone, [longer], 0, 0.5).train(HiddenRouter(), share=0.5, steps=1, lr=0.1, weight=1.0)


def test_the_loss_of_open_gates_is_that_of_the_stock_model(backbone, documents):
    probe = FitProbe(backbone, documents, 0, 0.5)
    batch = [example(backbone, d, 0) for d in documents[:5]]
    losses = []
    for prompt, target in batch:
        with torch.inference_mode():
            logits = backbone.model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
        # the prefill makes the first token at full depth: it is no decode forward
        losses += [-float(logits[len(prompt) - 1 + i, target[i]]) for i in range(1, len(target))]
    loss = probe._loss(constant([50.0] * 3), batch, share=0.6, weight=10.0).detach()
    assert float(loss) == pytest.approx(np.mean(losses) + 10 * (1 - 0.6) ** 2, rel=1e-5)
    closed = probe._loss(constant([50.0, -50.0, 50.0]), batch, share=0.8, weight=1000.0)
    opened = probe._loss(constant([50.0, -50.0, 50.0]), batch, share=0.6, weight=1000.0)
    assert float((opened - closed).detach()) == pytest.approx(1000 * 0.2**2, rel=1e-4)  # four of five layers run


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon-7b", "gemma3"])
def test_soft_gates_do_what_decoding_does(family):
    """Under fixed decisions the training forward is the engine's: same text, same layers, same logits."""
    family_backbone = tiny_models.backbone(family, DEPTH, dtype="float64")
    prompt, tokens = (5, 6, 7), [8, 9, 10, 11]
    codes = [[int(layer != 1) * int(Action.RUN) for layer in range(DEPTH)]] * 3  # layer 1 closed
    expected = replay.replay(family_backbone, prompt, tokens, codes)
    routed = torch.zeros(1, 6)
    routed[0, 3:] = 1
    gates = SoftGates(family_backbone, constant([-50.0, 50.0, 50.0]), routed)
    with gates.installed(), torch.no_grad():
        logits = family_backbone.model(torch.tensor([[*prompt, *tokens[:-1]]]), use_cache=False).logits
    torch.testing.assert_close(logits[0, 2:], expected, rtol=1e-9, atol=1e-9)
    assert float(gates.executed().detach()) == pytest.approx(4 / 5)


def test_soft_gates_leave_no_trace(backbone):
    gates = SoftGates(backbone, constant([0.0] * 3), torch.ones(1, 3))
    with pytest.raises(KeyError), gates.installed():
        assert [("forward" in vars(layer)) for layer in backbone.layers] == [False, True, True, True, False]
        raise KeyError
    assert not any("forward" in vars(module) for module in backbone.model.modules())


def test_only_the_router_learns_and_the_same_seed_learns_the_same(backbone, documents):
    weights = [p.clone() for p in backbone.model.parameters()]
    steps = []
    made = []
    for seed in (0, 0, 1):
        router = HiddenRouter(steps=3)
        probe = FitProbe(backbone, documents, seed, 0.5, lambda done, of: steps.append((done, of)))
        router.fit(probe)
        made.append(router.weights())
        assert not any(p.requires_grad for p in router.module(DEPTH, WIDTH).parameters())
    assert steps[:3] == [(1, 3), (2, 3), (3, 3)]
    assert all(torch.equal(made[0][k], made[1][k]) for k in made[0])
    assert any(not torch.equal(made[0][k], made[2][k]) for k in made[0])
    for before, after in zip(weights, backbone.model.parameters(), strict=True):
        assert torch.equal(before, after) and after.grad is None and not after.requires_grad


def test_a_knob_is_tuned_to_the_budget(backbone, documents):
    engine = Engine(backbone)
    for method, budget in (
        (ConfidenceExit(measure="top1", check=(1, 2, 3, 4)), 0.6),
        (constant([0.5, 0.0, -0.5]), 0.7),
    ):
        method = type(method).from_params({**method.params(), **({"noisy": True} if budget == 0.7 else {})})
        realised = tune(engine, method, method.knob, budget, documents, seed=0)
        assert abs(realised - budget) < 0.1
        again = engine.prefill(requests(backbone, documents)).decode(method, seed=0)
        assert np.mean([np.mean(g.layers) for g in again]) / DEPTH == pytest.approx(realised)


def test_a_budget_out_of_reach_gives_the_closest_setting(backbone, documents):
    method = ConfidenceExit(min_layers=3, check=(4,))
    knob = method.knob
    realised = tune(Engine(backbone), method, knob, 0.2, documents, seed=0)
    assert realised >= 0.8 and method.threshold < 0.05


def test_texts_that_end_at_once_do_not_break_the_tuning(documents):
    model = tiny_models.build("llama", depth=DEPTH)
    model.generation_config.eos_token_id = list(range(tiny_models.VOCABULARY))
    engine = Engine(wrap(model, toy_task.Characters()))
    method = ConfidenceExit()
    assert tune(engine, method, method.knob, 0.5, documents, seed=0) == 1.0
    assert math.isfinite(method.threshold)


def test_documents_that_do_not_fit_are_left_out(backbone):
    long = Document("long", "A" * 93, ("B",), 4, (), 0, None, "fit")
    short = Document("short", "A" * 92, ("B",), 4, (), 1, None, "fit")
    assert [r.id for r in requests(backbone, [long, short])] == ["short"]
    method = ConfidenceExit()
    with pytest.raises(DlbenchError, match="nothing to tune on"):
        tune(Engine(backbone), method, method.knob, 0.5, [long], seed=0)


def test_an_artifact_is_complete_once_its_facts_are_there(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    assert find_artifact("k", [mine, other]) is None
    save_artifact(other / "k", ConfidenceExit(threshold=0.25), {"budget": 0.5})
    (mine / "k").mkdir(parents=True)
    (mine / "k" / "weights.safetensors").write_bytes(b"unfinished")
    assert find_artifact("k", [mine, other]) == other / "k"
    method, facts = load_artifact(other / "k", ConfidenceExit)
    assert method == ConfidenceExit(threshold=0.25) and facts == {"budget": 0.5}


@pytest.mark.parametrize("damage", ["cut", "lost", "text", "unknown", "empty", "list", "layers"])
def test_a_damaged_artifact_is_one_clear_line(tmp_path, damage):
    save_artifact(tmp_path, constant([0.0] * 3), {})
    weights, facts = tmp_path / "weights.safetensors", tmp_path / "fit.json"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:40])
    elif damage == "lost":
        weights.unlink()
    elif damage == "text":
        facts.write_text("{")
    elif damage == "unknown":
        facts.write_text(json.dumps({"params": {"depht": 3}}))
    elif damage in ("empty", "list"):
        facts.write_text("{}" if damage == "empty" else "[]")
    else:
        facts.write_text(json.dumps({"params": {"kind": "mlp"}}))
    with pytest.raises(DlbenchError, match=r"is damaged .*delete that folder"):
        load_artifact(tmp_path, HiddenRouter)
