"""Fitting: which documents are learnt from, what is trained through the soft gates, how a knob meets its budget."""

import dataclasses
import json
import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import replay
import tiny_models
import torch
import toy_task
from ready import ready
from tiny_models import without

from dlbench.data.document import Document
from dlbench.engine import Engine, Request
from dlbench.engine.decoding import Decoding
from dlbench.engine.flops.costs import Costs
from dlbench.engine.keyed_rng import key_of
from dlbench.engine.proof.reference import logits_of
from dlbench.errors import DlbenchError
from dlbench.fit import (
    Facts,
    FitProbe,
    Readings,
    find_artifact,
    halves,
    load_artifact,
    open_loop,
    references,
    save_artifact,
    tune,
)
from dlbench.fit.open_loop import record, shares
from dlbench.fit.router_training import SoftGates
from dlbench.method import Action, Knob, LayerSet, Method, Route
from dlbench.methods.calm import Calm
from dlbench.methods.d_llm import DLlm
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.llm_drop import LlmDrop
from dlbench.methods.mind_skip import MindSkip
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.short_gpt import ShortGpt
from dlbench.methods.sleb import Sleb
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap
from dlbench.models.layer_patch import shadowed, state_of, with_state
from dlbench.prompting.teacher_forcing import Example, Parted, example

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


class Levels(torch.nn.Module):
    """Gates of fixed scores, by layer, whatever the state."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, hidden, layer):
        return hidden.new_full(hidden.shape[:-1], self.scores[layer])


def named(*ids):
    return [Document(i, "x", ("y",), 4, (), n, None, "fit") for n, i in enumerate(ids)]


def test_seventy_per_cent_are_learnt_from_by_id():
    everything = named(*(f"document-{i}" for i in range(1000)))
    learn, rest = halves(everything)
    assert 650 < len(learn) < 750 and len(rest) == 48  # more are not needed to set a threshold
    assert not {d.index for d in learn} & {d.index for d in rest}
    assert all(key_of(d.id) / 2**64 < 0.7 for d in learn) and all(key_of(d.id) / 2**64 >= 0.7 for d in rest)
    few, _ = halves(everything[::-7])
    assert {d.id for d in few} == {d.id for d in learn} & {d.id for d in everything[::-7]}


def probe_of(backbone, learn, tune=(), **more):
    return FitProbe(backbone, toy_task.Scored(), learn, tune, **more)


def test_without_anything_that_fits_the_context_nothing_is_learnt(backbone):
    longer = Document("b", "A" * 99, ("B" * 50,), 4, (), 0, None, "fit")
    with pytest.raises(DlbenchError, match="nothing to learn from"):
        probe_of(backbone, [longer]).train(HiddenRouter(), share=0.5, steps=1, lr=0.1, weight=1.0)


def loss_of(backbone, router, batch):
    """Cross entropy of decode forwards through the soft gates, and the executed share."""
    gates = SoftGates(backbone, router, batch, noise=False)
    with torch.no_grad():
        logits = gates.logits()
    entropy = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=-100)
    return float(entropy), float(gates.executed())


def test_the_loss_of_open_gates_is_that_of_the_stock_model(backbone, documents):
    examples = [example(backbone, d, 0) for d in documents[:5]]
    losses = []
    for prompt, target in examples:
        with torch.inference_mode():
            logits = backbone.model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
        # the prefill makes the first token at full depth: it is no decode forward
        losses += [-float(logits[len(prompt) - 1 + i, target[i]]) for i in range(1, len(target))]
    entropy, share = loss_of(backbone, constant([50.0] * 3), Parted.of(examples))
    assert entropy == pytest.approx(np.mean(losses), rel=1e-5) and share == 1
    _, share = loss_of(backbone, constant([50.0, -50.0, 50.0]), Parted.of(examples))
    assert share == pytest.approx(4 / 5)


@pytest.mark.parametrize(("cost", "expected"), [("squared", 7 * 0.3**2), ("absolute", 7 * 0.3), ("linear", 7 * 2 / 3)])
def test_costs_by_hand(backbone, documents, cost, expected):
    """Of five layers one gate of three is closed: a share of 0.8 against 0.5, and 2/3 of the gates open."""

    class Fixed(HiddenRouter):
        def build(self, depth, width):
            return constant([50.0, -50.0, 50.0]).module(depth, width)

    def first(weight):
        return probe_of(backbone, documents).train(
            Fixed(), steps=1, lr=0.0, weight=weight, cost=cost, share=0.5, noise=False
        )[0]

    assert first(7.0) - first(0.0) == pytest.approx(expected, rel=1e-3)


CLOSED = {layer: [[int(i != layer) * int(Action.RUN) for i in range(DEPTH)]] * 3 for layer in range(DEPTH)}


def text_of(prompt, tokens):
    return Parted.of([Example(list(prompt), list(tokens))])


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon-7b", "gemma3"])
def test_soft_gates_do_what_decoding_does(family):
    """Under fixed decisions the training forward is the engine's: same text, same layers, same logits."""
    family_backbone = tiny_models.backbone(family, DEPTH, dtype="float64")
    prompt, tokens = (5, 6, 7), [8, 9, 10, 11]
    expected = replay.replay(family_backbone, prompt, tokens, CLOSED[1])  # layer 1 closed
    batch = text_of(prompt, tokens)
    gates = SoftGates(family_backbone, constant([-50.0, 50.0, 50.0]), batch, noise=False)
    with torch.no_grad():
        logits = gates.logits()
    torch.testing.assert_close(logits[0], expected[1:], rtol=1e-9, atol=1e-9)
    assert float(gates.executed().detach()) == pytest.approx(4 / 5)


@pytest.mark.parametrize(
    ("family", "part"),
    [
        *((f, Action.ATTN) for f in ("llama", "gpt2", "falcon-7b", "bloom", "opt", "gpt_neox", "gemma3")),
        *((f, Action.MLP) for f in ("llama", "opt", "gpt_oss")),
    ],
)
@pytest.mark.parametrize("per", ["token", "sequence"])
def test_soft_gates_on_halves_do_what_decoding_does(family, part, per):
    attention = "eager" if family in tiny_models.EAGER_ONLY else "sdpa"
    family_backbone = tiny_models.backbone(family, DEPTH, attention, "float32" if attention == "eager" else "float64")
    prompt, tokens = (5, 6, 7), [8, 9, 10, 11]
    codes = [[int(Action.RUN & ~part if layer == 2 else Action.RUN) for layer in range(DEPTH)]] * 3
    expected = replay.replay(family_backbone, prompt, tokens, codes)
    router = type("OnHalf", (MindSkip,), {"part": part})(per=per)
    router._module = Levels({2: -50.0, 3: 50.0})
    batch = text_of(prompt, tokens)
    gates = SoftGates(family_backbone, router, batch, noise=False)
    with torch.no_grad():
        logits = gates.logits()
    tolerance = 1e-9 if attention == "sdpa" else 1e-4
    torch.testing.assert_close(logits[0], expected[1:], rtol=tolerance, atol=tolerance)
    costs = Costs(family_backbone)
    half = costs.shares[int(part), 2]
    assert float(gates.executed()) == pytest.approx(1 - half / DEPTH)


@pytest.mark.parametrize(("prompt", "spared"), [((5, 6, 7), 0), ((5, 6), 0), ((5,), 1)])
def test_soft_gates_evict_and_spare(prompt, spared):
    """D-LLM's rules in training: skipped tokens are not attended to, and the sequence's first two run everything."""
    backbone = tiny_models.backbone("llama", DEPTH, dtype="float64")
    tokens = [8, 9, 10, 11, 12]
    router = DLlm(inner=8)
    with torch.no_grad():
        for layer, gate in enumerate(router.module(DEPTH, WIDTH).gates, 2):
            for parameter in gate.parameters():
                parameter.zero_()
            gate[3].bias.copy_(torch.tensor([50.0, 0.0] if layer == 3 else [0.0, 50.0]))
    run = [int(Action.RUN)] * DEPTH
    skip = [int(Action.RUN if layer != 3 else Action.SKIP) for layer in range(DEPTH)]
    codes = [run] * spared + [skip] * (4 - spared)
    expected = replay.replay(backbone, prompt, tokens, codes, kv="evict")
    batch = text_of(prompt, tokens)
    gates = SoftGates(backbone, router, batch, noise=False)
    with torch.no_grad():
        logits = gates.logits()
    torch.testing.assert_close(logits[0], expected[1:], rtol=1e-9, atol=1e-9)
    assert float(gates.executed()) == pytest.approx(1 - (1 - spared / 4) / DEPTH)
    recorded = replay.Recorded(router)  # and in use
    (generation,) = Engine(backbone).prefill([Request("a", prompt, 5)]).decode(recorded)
    assert generation.layers == [DEPTH] * spared + [DEPTH - 1] * (4 - spared)


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom", "mpt"])
def test_soft_gates_evict_in_masks_of_every_form(family):
    """Masks are given by name or by place, and are True where a key is visible, or where it is hidden, or added."""
    attention = "eager" if family in tiny_models.EAGER_ONLY else "sdpa"
    family_backbone = tiny_models.backbone(family, DEPTH, attention)
    texts = [Example([5, 6, 7, 4], [8, 9, 10, 11]), Example([3, 4], [12, 11, 10, 9, 8, 7])]
    torch.manual_seed(0)
    router = DLlm(inner=8, first=1)
    for gate in router.module(DEPTH, WIDTH).gates:
        torch.nn.init.normal_(gate[3].weight)
        torch.nn.init.zeros_(gate[3].bias)
    gates = SoftGates(family_backbone, router, Parted.of(texts), noise=False)
    with torch.no_grad():
        logits = gates.logits()
    kept = torch.stack(gates.kept, -1).round().long().numpy()  # [rows, steps, gates]
    assert kept[0, :3].any() and not kept[0, :3].all()  # some are closed, some look at what those left out
    for row, (prompt, target) in enumerate(texts):
        actions = np.full((len(prompt) + len(target) - 1, DEPTH), int(Action.RUN))
        actions[len(prompt) :, 1:] *= kept[row, : len(target) - 1]
        expected = logits_of(family_backbone, [*prompt, *target[:-1]], actions, "evict")[len(prompt) :]
        torch.testing.assert_close(logits[row, : len(expected)], expected, rtol=1e-4, atol=1e-4)


def test_a_router_that_evicts_is_trained_where_masks_are_given_by_place():
    backbone = wrap(tiny_models.build("gpt2", depth=DEPTH), toy_task.Characters())
    DLlm(inner=8, steps=2).fit(probe_of(backbone, toy_task.documents(backbone.model, 4), budget=0.5))


@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon-7b", "bloom", "opt", "gemma3", "gpt_oss"])
def test_prompts_that_are_read_apart_change_neither_logits_nor_gradients(family):
    """Texts of several lengths, padded on both sides, against one forward over each whole text."""
    attention = "eager" if family in tiny_models.EAGER_ONLY else "sdpa"
    family_backbone = tiny_models.backbone(family, DEPTH, attention, "float32" if attention == "eager" else "float64")
    tolerance = {"rtol": 1e-3, "atol": 1e-4} if attention == "eager" else {"rtol": 1e-7, "atol": 1e-9}
    texts = [Example([5, 6, 7, 4], [8, 9, 10, 11]), Example([9], [7, 6, 5]), Example([3, 4], [12, 11, 10, 9, 8, 7])]
    scores = [-0.4, 0.7, -0.2]

    def gradients(router):
        return [gate.bias.grad.clone() for gate in router.module(DEPTH, WIDTH).gates]

    router, reference = constant(scores), constant(scores)
    router.module(DEPTH, WIDTH).requires_grad_(True)
    reference.module(DEPTH, WIDTH).requires_grad_(True)
    logits = SoftGates(family_backbone, router, Parted.of(texts), noise=False).logits()
    loss = torch.zeros((), dtype=logits.dtype)
    for row, (prompt, target) in enumerate(texts):

        def around(index, forward, hidden, *args, prompt=prompt, **kwargs):
            given = forward(hidden, *args, **kwargs)
            soft = reference.score(hidden, index, DEPTH).sigmoid()
            keep = (soft >= 0.5).to(soft) + soft - soft.detach()
            keep = torch.cat([torch.ones_like(keep[:, : len(prompt)]), keep[:, len(prompt) :]], 1)[..., None]
            return with_state(given, hidden + keep.to(hidden) * (state_of(given) - hidden))

        with shadowed({i: family_backbone.layers[i] for i in (1, 2, 3)}, around):
            whole = family_backbone.model(torch.tensor([prompt + target[:-1]]), use_cache=False).logits
        expected = whole[0, len(prompt) :]
        torch.testing.assert_close(logits[row, : len(expected)], expected, **tolerance)
        loss = loss + torch.nn.functional.cross_entropy(expected, torch.tensor(target[1:]), reduction="sum")
    loss.backward()
    labels = Parted.of(texts).labels.flatten()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels, ignore_index=-100, reduction="sum").backward()
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients(reference))
    for found, expected in zip(gradients(router), gradients(reference), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_soft_gates_leave_no_trace(backbone):
    gates = SoftGates(backbone, constant([0.0] * 3), text_of((5, 6), (7, 8)), noise=True)
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
        router.fit(probe_of(backbone, documents, seed=seed, budget=0.5, say=lambda done, of: steps.append((done, of))))
        made.append(router.weights())
        assert not any(p.requires_grad for p in router.module(DEPTH, WIDTH).parameters())
    assert steps[:3] == [(1, 3), (2, 3), (3, 3)]
    assert all(torch.equal(made[0][k], made[1][k]) for k in made[0])
    assert any(not torch.equal(made[0][k], made[2][k]) for k in made[0])
    for before, after in zip(weights, backbone.model.parameters(), strict=True):
        assert torch.equal(before, after) and after.grad is None and not after.requires_grad


# ---- what a probe shows


@pytest.fixture(scope="module")
def planted():
    """A backbone whose layers 2 and 4 of six add nothing, and whose feed-forward 1 and attention 3 add nothing."""
    model = tiny_models.build("llama", depth=6)
    with torch.no_grad():
        for layer, halves_ in ((2, ("attn", "mlp")), (4, ("attn", "mlp")), (1, ("mlp",)), (3, ("attn",))):
            for half in halves_:
                block = model.model.layers[layer]
                out = block.self_attn.o_proj if half == "attn" else block.mlp.down_proj
                out.weight.zero_()
                out.bias.zero_()
    return wrap(model, toy_task.Characters()), toy_task.documents(model, 10)


def test_states_and_logits_under_teacher_forcing(backbone, documents):
    (text,) = list(probe_of(backbone, documents[:3]).texts())
    rows = []
    for d in documents[:3]:
        prompt, target = example(backbone, d, 0)
        with torch.inference_mode():
            out = backbone.model(torch.tensor([prompt + target]), output_hidden_states=True)
        rows.append((len(prompt), len(target), out))
    assert len(text.states) == DEPTH + 1 and len(text.states[0]) == sum(n - 1 for _, n, _ in rows)
    order = sorted(rows, key=lambda r: r[0] + r[1])
    for layer in range(DEPTH):
        expected = torch.cat([o.hidden_states[layer][0, p : p + n - 1] for p, n, o in order])
        torch.testing.assert_close(text.states[layer], expected, rtol=1e-4, atol=1e-4)
    expected = torch.cat([o.logits[0, p : p + n - 1] for p, n, o in order])
    torch.testing.assert_close(text.logits(DEPTH), expected, rtol=1e-4, atol=1e-4)


def test_texts_are_tokenised_once_for_all_plans(monkeypatch, backbone, documents):
    tokenised = []
    monkeypatch.setattr(references, "example", lambda *of: tokenised.append(of[1].id) or example(*of))
    probe = probe_of(backbone, documents)
    losses = [probe.nll(LayerSet(layers), 2) for layers in ((0, 1, 2, 3, 4), (0, 1, 3, 4), (0, 1, 2, 3, 4))]
    assert losses[0] == losses[2] != losses[1]
    assert tokenised == [d.id for d in documents]
    other = probe_of(backbone, documents, seed=1, readings=probe.readings)
    assert [e.prompt for e in other.references.examples()] == [e.prompt for e in probe.references.examples()]
    assert len(tokenised) == 2 * len(documents)  # another seed chooses other references


def test_planted_layers_have_no_influence(planted):
    """ShortGPT drops them first; SLEB finds them by likelihood; LLM-Drop finds halves."""
    backbone, documents = planted
    probe = probe_of(backbone, documents)
    short = ShortGpt()
    assert short.learns
    short.fit(probe)
    assert not short.learns and [i for i, x in enumerate(short.influence) if x < 1e-6] == [2, 4]
    assert short.at(4 / 6, 6).layers(6) == {0, 1, 3, 5}
    sleb = Sleb()
    sleb.fit(probe)
    assert set(sleb.order[:2]) == {2, 4} and set(sleb.order) == {1, 2, 3, 4}
    assert sleb.at(4 / 6, 6).layers(6) == {0, 1, 3, 5} and sleb.at(0.1, 6).layers(6) == {0, 5}
    drop = LlmDrop()
    drop.fit(probe)
    nothing = {i for i, x in enumerate(drop.importance) if x < 1e-6}
    assert nothing == {2, 3, 4, 6 + 1, 6 + 2, 6 + 4}
    kept = (
        1 - sum(drop.attention_cost[i] for i in (2, 3, 4)) / 6 - sum(1 - drop.attention_cost[i] for i in (1, 2, 4)) / 6
    )
    plan = drop.at(kept, 6).actions(6)
    assert plan == (Action.RUN, Action.ATTN, Action.SKIP, Action.MLP, Action.SKIP, Action.RUN)
    only = LlmDrop.from_params({**drop.params(), "part": "attention"}).at(0.1, 6).actions(6)
    assert set(only) == {Action.MLP}


def test_under_routed_prompts_a_plan_is_as_likely_as_by_the_model_without_these_layers(planted):
    backbone, documents = planted
    probe = probe_of(backbone, documents, prompt="routed")
    for layers in ((0, 1, 2, 3, 4, 5), (0, 2, 5)):
        model, total, count = without(backbone, layers), 0.0, 0
        for d in documents:
            prompt, target = example(backbone, d, 0)
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + target])).logits[0].log_softmax(-1)
            total -= sum(float(logits[len(prompt) - 1 + i, t]) for i, t in enumerate(target))
            count += len(target)
        assert probe.nll(LayerSet(layers)) == pytest.approx(total / count, rel=1e-4)
    assert not any("forward" in vars(module) for module in backbone.model.modules())


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "opt", "falcon-7b"])
@pytest.mark.parametrize("layers", [(0, 1, 2, 3, 4), (0, 2, 4), (1, 3)], ids=str)
def test_under_full_prompts_a_plan_is_as_likely_as_the_engine_finds_it(monkeypatch, family, layers):
    """The references are forced upon the engine's own decoding, whose prompts run every layer."""
    model = tiny_models.build(family, depth=DEPTH)
    backbone, documents = wrap(model, toy_task.Characters()), toy_task.documents(model, 10)
    engine, total, count = Engine(backbone), 0.0, 0
    for d in documents:
        prompt, target = example(backbone, d, 0)
        seen, forced = [], iter(target)

        def choose(self, logits, rows, ahead=None, seen=seen, forced=forced):
            seen.append(logits[0].log_softmax(-1))
            return torch.tensor([next(forced)])

        with monkeypatch.context() as patch:
            patch.setattr(Decoding, "_choose", choose)
            engine.prefill([Request(d.id, tuple(prompt), len(target))]).decode(LayerSet(layers))
        total -= sum(float(found[token]) for found, token in zip(seen[1:], target[1:], strict=True))
        count += len(target) - 1
    probe = probe_of(backbone, documents)
    assert probe.nll(LayerSet(layers)) == pytest.approx(total / count, rel=1e-4)
    assert not any("forward" in vars(module) for module in backbone.model.modules())


def keep(states, module, given):
    states.append(given[0][0])


def test_prompts_show_their_last_and_mean_states(backbone, documents):
    probe = probe_of(backbone, documents)
    prompt = probe.prompts([0, 2, DEPTH])
    for row, d in enumerate(documents):
        ids = torch.tensor([backbone.tokenizer(d.prompt)["input_ids"]])
        states = []
        modules = [*backbone.layers, backbone.model.model.norm]
        hooks = [m.register_forward_pre_hook(partial(keep, states)) for m in modules]
        with torch.inference_mode():
            backbone.model(ids)
        for hook in hooks:
            hook.remove()
        for layer in (0, 2, DEPTH):
            torch.testing.assert_close(prompt.last(layer)[row], states[layer][-1], rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(prompt.mean(layer)[row], states[layer].mean(0), rtol=1e-4, atol=1e-4)
            normed = torch.nn.functional.rms_norm(states[layer], (WIDTH,), eps=1e-6)
            torch.testing.assert_close(prompt.normed_mean(layer)[row], normed.mean(0), rtol=1e-4, atol=1e-4)


def test_free_texts_are_scored_and_counted(backbone, documents):
    probe = probe_of(backbone, documents[:6], documents[6:])
    full, half = probe.run(None), probe.run(StaticSkip(share=0.4))
    assert [w.id for w in full] == [d.id for d in documents[6:]] == probe.ids("tune")
    assert all(w.share == 1 for w in full) and all(w.share == pytest.approx(0.4) for w in half)
    assert np.mean([w.score for w in full]) > np.mean([w.score for w in half])
    assert probe.tokens > 0 and probe.likeness("a b c", "a b d") == pytest.approx(2 / 3)


def test_a_probe_takes_plans_and_routers_only(backbone, documents):
    """Plugins see methods of any kind in its signatures, so a wrong kind must be told and not train something else."""
    probe = probe_of(backbone, documents[:6], documents[6:])
    with pytest.raises(TypeError, match="nll takes a static plan, not HiddenRouter"):
        probe.nll(HiddenRouter())
    with pytest.raises(TypeError, match="train takes a Router, not StaticSkip"):
        probe.train(StaticSkip(share=0.4), steps=1, lr=0.1, weight=1.0)
    with pytest.raises(TypeError, match="rounds"):
        probe.train(HiddenRouter(), steps=1, lr=0.1, weight=1.0, rounds=2)


def test_the_tokens_of_a_probe_are_those_of_both_halves(backbone, documents):
    probe = probe_of(backbone, documents[:6], documents[6:])
    forced = sum(len(text.states[0]) for text in probe.texts())
    assert probe.tokens == probe.references.tokens >= forced > 0
    probe.run(None)
    prompts = sum(len(backbone.encode(d.prompt)) for d in probe.documents("tune"))
    assert probe.tokens > probe.references.tokens + prompts


@pytest.mark.parametrize("method", [StaticSkip(share=0.4), RandomSkip(share=0.5, per="sequence"), LayerSet((1, 3))])
def test_free_texts_are_written_from_prompts_that_the_policy_routes(backbone, documents, method):
    """Against the engine's own routed prompts; what can't route prompts writes from full ones under either policy."""

    def written(prompt, tried):
        return [(w.text, w.share) for w in probe_of(backbone, [], documents, prompt=prompt).run(tried)]

    requests = [Request(d.id, tuple(backbone.encode(d.prompt)), d.limit, d.stop) for d in documents]
    for prompt, routed in (("routed", method), ("full", None)):
        generations = Engine(backbone).prefill(requests, routed).decode(method)
        expected = [
            (backbone.tokenizer.decode(g.tokens), np.mean(g.layers) / DEPTH if g.layers else 1.0) for g in generations
        ]
        assert written(prompt, method) == expected
    assert written("routed", method) != written("full", method)
    for other in (None, Calm(threshold=0.2), ready(MindSkip(), DEPTH)):
        assert written("routed", other) == written("full", other)


def test_a_knob_is_tuned_from_prompts_that_the_policy_routes(backbone, documents):
    """Texts written from routed prompts have a share of their own: that is what the knob is tuned by."""

    @dataclass
    class Shallow(Method):
        knob: ClassVar[Knob | None] = Knob("cut", 0.0, 1.0)
        cut: float = 0.5

        @property
        def scope(self):
            return "sequence"

        def route(self, view):
            return view.uniform(per="sequence")[:, 0] < self.cut if view.layer in (2, 3) else Action.RUN

    seen = []
    prefill = Engine.prefill

    def watch(self, requests, method=None, *args, **more):
        seen.append(method)
        return prefill(self, requests, method, *args, **more)

    for prompt in ("full", "routed"):
        probe = probe_of(backbone, [], documents, prompt=prompt)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Engine, "prefill", watch)
            method = Shallow()
            realised = tune(probe, method, 0.8)
        requests = [Request(d.id, tuple(backbone.encode(d.prompt)), d.limit, d.stop) for d in documents]
        routed = method if prompt == "routed" else None
        generations = Engine(backbone).prefill(requests, routed).decode(method)
        assert realised == np.mean([np.mean(g.layers) / DEPTH if g.layers else 1.0 for g in generations])
        assert {m is not None for m in seen} == {prompt == "routed"}
        seen.clear()


# ---- knobs


def test_the_open_loop_of_exits_is_what_decoding_does_on_the_same_text(backbone):
    """The model's own full-depth text, forced: an exit changes nothing that comes before it."""
    documents = toy_task.documents(backbone.model, 8, limit=9)
    probe = probe_of(backbone, [], documents)
    trace = record(probe.references)
    for threshold in (0.1, 0.3, 0.5):
        method = Calm(measure="top1", check=(1, 2, 3, 4), threshold=threshold)
        (share,) = shares(probe.references, method, trace, [threshold])
        forced = []
        for d in documents:
            target = example(backbone, d, 0).target
            (text,) = list(probe_of(backbone, [d]).texts())
            layers = []
            for token in range(len(target) - 1):
                sure = [float(text.logits(i)[token].softmax(-1).max()) >= threshold for i in (1, 2, 3, 4)]
                layers.append(1 + sure.index(True) if True in sure else DEPTH)
            forced.append(np.mean(layers) / DEPTH)
        assert share == pytest.approx(np.mean(forced), abs=1e-9)


def test_confidences_are_computed_in_parts_where_logits_are_large(monkeypatch, backbone):
    probe = probe_of(backbone, [], toy_task.documents(backbone.model, 8, limit=9))
    trace, method, sizes = record(probe.references), Calm(check=(1, 3)), []

    def found(most):
        def logits(self, states):
            sizes.append(len(states))
            return of(self, states)

        probe.readings.confidences.clear()
        with monkeypatch.context() as patch:
            of = references.References.logits
            patch.setattr(references.References, "logits", logits)
            patch.setattr(open_loop, "_LOGITS", most)
            shares(probe.references, method, trace, [0.5])
        (known,) = probe.readings.confidences.values()
        return known

    row, count = 4 * backbone.vocabulary, len(trace.row)
    together, apart = found(count * row), found(10 * row)
    assert sizes[:2] == [count] * 2 and max(sizes[2:]) <= 10 and sum(sizes[2:]) == 2 * count
    assert [len(x) for x in apart] == [0, count, 0, count, 0]
    torch.testing.assert_close(apart, together)


def test_a_knob_is_tuned_to_the_budget(backbone, documents):
    for method, budget in (
        (Calm(measure="top1", check=(1, 2, 3, 4)), 0.6),
        (Calm(measure="top1", check=(1, 2, 3, 4), leave="batch"), 0.8),
        (constant([0.5, 0.0, -0.5]), 0.7),
    ):
        if budget == 0.7:
            method.noisy = True
        probe = probe_of(backbone, [], documents)
        realised = tune(probe, method, budget)
        assert abs(realised - budget) < 0.1
        assert np.mean([w.share for w in probe.run(method)]) == pytest.approx(realised)


@dataclass
class Saves(Method):
    """Run all layers for a share of the tokens: a text saves up the share of each token until it has a whole one."""

    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)
    share: float = 1.0
    begins: bool = True

    def begin(self, prompt):
        return torch.full((prompt.count, 2), 0.25) if self.begins else None

    def route(self, view):
        if view.layer > 0:
            return view.memory[:, 1] > 0
        saved = (torch.zeros(len(view.row)) if view.memory is None else view.memory[:, 0]) + self.share
        runs = saved >= 1 - 1e-6
        return Route(runs, memory=torch.stack((saved - runs.float(), runs.float()), 1))


@pytest.mark.parametrize("begins", [True, False])
def test_memory_works_under_teacher_forcing_as_in_decoding(backbone, documents, begins):
    """What `begin` gives although it reads no layer, and what `route` gives from token to token."""
    probe = FitProbe(backbone, toy_task.Scored(), documents[:6], documents[6:])
    trace, method = record(probe.references), Saves(begins=begins)
    values, prompt = [0.0, 0.3, 0.5, 1.0], probe.prompts([], "tune") if begins else None
    counts = np.bincount(trace.row)
    start = 0.25 if begins else 0.0
    by_hand = [np.mean([math.floor(start + value * n + 1e-5) / n for n in counts]) for value in values[:3]] + [1.0]
    assert shares(probe.references, method, trace, values, prompt) == pytest.approx(by_hand)
    assert tune(probe, method, 0.5) == pytest.approx(0.5, abs=0.1)


def test_memory_is_that_of_the_text_where_some_documents_give_none(backbone, documents):
    """A document whose reference has a single token is not decoded, and the others keep their own memory."""
    short = dataclasses.replace(documents[6], references=("A",), delimiter="")
    probe = FitProbe(backbone, toy_task.Scored(), documents[:6], [short, *documents[7:]])
    trace = record(probe.references)
    assert trace.document.tolist() == [1, 2, 3, 4, 5]


@dataclass
class First(Method):
    """Run the first layers, by answers of Python."""

    knob: ClassVar[Knob | None] = Knob("count", 0, DEPTH)
    count: float = 0

    def route(self, view):
        return view.layer < self.count


def test_a_python_bool_is_a_whole_layer_under_teacher_forcing(backbone, documents):
    probe = FitProbe(backbone, toy_task.Scored(), documents[:6], documents[6:])
    trace = record(probe.references)
    assert shares(probe.references, First(), trace, [1, 3, DEPTH]) == pytest.approx([1 / DEPTH, 3 / DEPTH, 1.0])


def test_a_knob_is_tuned_in_few_runs(backbone, documents, monkeypatch):
    runs = []
    run = FitProbe.run
    monkeypatch.setattr(FitProbe, "run", lambda self, *a: runs.append(1) or run(self, *a))
    for measure in ("top1", "top2", "state"):
        tune(probe_of(backbone, [], documents), Calm(measure=measure, check=(1, 2, 3, 4)), 0.5)
    assert len(runs) <= 12  # a trace and some corrections, where a search would take a dozen runs each


def test_a_budget_out_of_reach_gives_the_closest_setting(backbone, documents):
    method = Calm(min_layers=3, check=(4,))
    realised = tune(probe_of(backbone, [], documents), method, 0.2)
    assert realised >= 0.8 and method.threshold < 0.05


def test_texts_that_end_at_once_do_not_break_the_tuning(documents):
    model = tiny_models.build("llama", depth=DEPTH)
    model.generation_config.eos_token_id = list(range(tiny_models.VOCABULARY))
    method = Calm()
    assert tune(probe_of(wrap(model, toy_task.Characters()), [], documents), method, 0.5) == 1.0
    assert math.isfinite(method.threshold)


def test_documents_that_do_not_fit_are_left_out(backbone):
    long = Document("long", "A" * 93, ("B",), 4, (), 0, None, "fit")
    short = Document("short", "A" * 92, ("BCD",), 4, (), 1, None, "fit")
    assert probe_of(backbone, [], [long, short]).ids("tune") == ["short"]
    with pytest.raises(DlbenchError, match="nothing to tune on"):
        tune(probe_of(backbone, [], [long]), Calm(), 0.5)


def test_an_artifact_is_complete_once_its_facts_are_there(tmp_path):
    mine, other = tmp_path / "mine", tmp_path / "other"
    assert find_artifact("k", [mine, other]) is None
    known = Facts("calm", "toy", seed=3, budget=0.5, realised=0.51, tuned_on=48, tokens=900, seconds=1.5)
    save_artifact(other / "k", Calm(threshold=0.25), known)
    (mine / "k").mkdir(parents=True)
    (mine / "k" / "weights.safetensors").write_bytes(b"unfinished")
    assert find_artifact("k", [mine, other]) == other / "k"
    method, facts = load_artifact(other / "k", Calm)
    assert method == Calm(threshold=0.25) and facts == known


@pytest.mark.parametrize("damage", ["cut", "lost", "text", "unknown", "empty", "list", "layers"])
def test_a_damaged_artifact_is_one_clear_line(tmp_path, damage):
    save_artifact(tmp_path, constant([0.0] * 3), Facts("hidden_router", "toy", seed=0, budget=0.5))
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


def test_fits_that_share_what_was_read_find_and_count_the_same(backbone, documents, monkeypatch):
    """Several knobs one after the other, alone and with common readings, which spare the second prefill."""
    read = []
    prefill = Engine.prefill
    monkeypatch.setattr(Engine, "prefill", lambda self, *args, **more: read.append(1) or prefill(self, *args, **more))

    def found(readings):
        facts = []
        for method, seed in ((StaticSkip(), 0), (Calm(), 0), (Calm(), 1)):
            shared = {} if readings is None else {"readings": readings}
            probe = probe_of(backbone, [], documents, seed=seed, **shared)
            facts.append((tune(probe, method, 0.5), method.params(), probe.tokens))
        return facts

    alone, times = found(None), len(read)
    assert found(Readings()) == alone
    assert times == 3 and len(read) == 4
