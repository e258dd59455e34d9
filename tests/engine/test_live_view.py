"""What a method sees is the truth: the states that an uncached pass under the same decisions has at that place."""

from functools import partial

import pytest
import replay
import tiny_models
import torch

from dlbench.engine import Engine, Request
from dlbench.engine.loglikelihood import weigh
from dlbench.engine.requests import Question
from dlbench.engine.routing.method_plan import Routing
from dlbench.errors import DlbenchError, MethodError
from dlbench.method import Action, Method, Route
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.families import resolve

DEPTH = 5
PROMPTS = tiny_models.prompts(5)
LIMITS = [9, 4, 9, 2, 7]


class Seeing(Method):
    """Skips and leaves at random and keeps everything that it was shown."""

    def __init__(self, spoil=False, every=1):
        """`every`: looks at the state before the last layer that ran before each so many layers only, but twice."""
        self.spoil, self.every, self.shown = spoil, every, {}

    def route(self, view):
        logits = view.logits()
        seen = {
            "hidden": view.hidden,
            "embedded": view.embedded,
            "logits": logits,
            "position": view.position,
            "limit": view.limit,
        }
        if view.layer % self.every == self.every - 1:
            seen |= {"before": view.before, "again": view.before}
        for i, (row, step) in enumerate(zip(view.row.tolist(), view.step.tolist(), strict=True)):
            values = {k: None if v is None else v[i].clone() for k, v in seen.items()}
            self.shown[row, step, view.layer] = values
        u = view.uniform(2)
        answer = torch.where(u[:, 1] < 0.1, int(Action.EXIT), (u[:, 0] < 0.5).to(torch.int64) * int(Action.RUN))
        if self.spoil:
            noise = view.uniform(per="token"), view.uniform(per="sequence")
            for tensor in (*seen.values(), view.row, view.step, *noise):
                if tensor is not None:
                    tensor.fill_(-1)
        return answer


def states(backbone, prompt, tokens, codes):
    """State before every layer of the whole text, by a replay: [depth, positions, width]."""
    found = []

    def watch(forward, hidden, *args, **kwargs):
        found.append(hidden[0])
        return forward(hidden, *args, **kwargs)

    layer = type(backbone.layers[0])
    original = layer.forward
    layer.forward = lambda self, hidden, *args, **kwargs: watch(partial(original, self), hidden, *args, **kwargs)
    try:
        replay.replay(backbone, prompt, tokens, codes)
    finally:
        layer.forward = original
    return torch.stack(found)


@pytest.mark.parametrize(("family", "every"), [("llama", 1), ("llama", 3), ("opt-projected", 1), ("gpt2", 1)])
def test_shows_the_states_of_an_uncached_pass(family, every):
    backbone = tiny_models.backbone(family, DEPTH, "sdpa", "float64")
    seeing = Seeing(every=every)
    recorded = replay.Recorded(seeing)
    requests = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))]
    written = Engine(backbone).prefill(requests).decode(recorded)
    checked = zeros = 0
    for (row, step, layer), shown in seeing.shown.items():
        prompt, tokens = PROMPTS[row], written[row].tokens
        codes = [recorded.codes[row, s] for s in range(len(tokens) - 1)]
        expected = states(backbone, prompt, tokens, codes)[:, len(prompt) + step]  # [depth, width]
        torch.testing.assert_close(shown["hidden"], expected[layer], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(shown["embedded"], expected[0], rtol=1e-9, atol=1e-9)
        assert int(shown["position"]) == len(prompt) + step
        assert int(shown["limit"]) == LIMITS[row]
        x = shown["hidden"]
        for path in backbone.family.head:
            module = resolve(backbone.model, path)
            x = x if module is None else module(x)
        torch.testing.assert_close(shown["logits"], x, rtol=1e-9, atol=1e-9)
        if "before" not in shown:
            continue
        executed = [i for i in recorded.ran()[row, step] if i < layer]
        if executed:
            for name in ("before", "again"):
                torch.testing.assert_close(shown[name], expected[executed[-1]], rtol=1e-9, atol=1e-9)
            checked += executed[-1] < layer - 1  # there, the layer below was skipped
        else:
            assert shown["before"] is None or not bool(shown["before"].any())
            zeros += shown["before"] is not None
    assert checked and zeros
    assert all(shown.get("before") is None for (_, _, layer), shown in seeing.shown.items() if layer == 0)


def test_writing_to_what_is_shown_changes_nothing():
    backbone = tiny_models.backbone("llama", DEPTH)
    requests = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))]
    wave = Engine(backbone).prefill(requests)
    assert wave.decode(Seeing(spoil=True)) == wave.decode(Seeing())


def test_exit_heads_are_charged_to_those_who_looked():
    backbone = tiny_models.backbone("opt-projected", DEPTH)
    requests = [Request(str(i), p, 4) for i, p in enumerate(PROMPTS)]
    engine = Engine(backbone)

    class Looking(Method):
        def route(self, view):
            if view.layer == 2 and (view.step == 1).all():
                view.logits()
            return Action.RUN

    wave = engine.prefill(requests)
    plain, looked = wave.decode(None), wave.decode(Looking())
    assert [g.tokens for g in looked] == [g.tokens for g in plain]
    head = 2 * 32 * 20 + 2 * 20 * tiny_models.VOCABULARY
    assert [g.flops["heads"] - p.flops["heads"] for g, p in zip(looked, plain, strict=True)] == [head] * 5
    assert all(g.flops["router"] == 0 for g in looked)


class PlainHead(torch.nn.Module):
    """A product with a parameter, and no linear map among its modules."""

    def __init__(self):
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.ones(32, tiny_models.VOCABULARY), requires_grad=False)

    def forward(self, states):
        return torch.einsum("nw,wv->nv", states, self.matrix)


@pytest.mark.parametrize("head", [torch.nn.Linear(32, tiny_models.VOCABULARY), PlainHead()])
def test_own_heads_are_metered_whatever_they_are_made_of(head):
    requests = [Request(str(i), p, 3) for i, p in enumerate(PROMPTS)]
    wave = Engine(tiny_models.backbone("llama", DEPTH)).prefill(requests)

    class Own(Method):
        def head(self, layer):
            return head.requires_grad_(False)

        def route(self, view):
            if view.layer == 2 and (view.step == 1).all():
                view.logits()
            return Action.RUN

    plain, looked = wave.decode(None), wave.decode(Own())
    charged = [g.flops["heads"] - p.flops["heads"] for g, p in zip(looked, plain, strict=True)]
    assert charged == [2 * 32 * tiny_models.VOCABULARY] * 5
    assert all(g.flops["router"] == 0 for g in looked)


@pytest.mark.parametrize("state", ["hidden", "embedded", "before"])
def test_a_routed_prompt_shows_no_states(state):
    class Peeking(Method):
        @property
        def scope(self):
            return "sequence"

        def route(self, view):
            assert view.step.tolist() == [-1]
            if view.layer == 1:
                getattr(view, state)
            return Action.RUN

    engine = Engine(tiny_models.backbone("llama", DEPTH))
    with pytest.raises(DlbenchError, match="shows no states"):
        engine.prefill([Request("a", PROMPTS[0], 3)], Peeking())


def test_a_routed_prompt_keeps_no_states(monkeypatch):
    """What entered a layer is free once the layers behind it run."""
    kept, begin = [], Routing.begin

    def watch(self, cache, ledger):
        kept.append(self.view)
        begin(self, cache, ledger)

    monkeypatch.setattr(Routing, "begin", watch)
    engine, method = Engine(tiny_models.backbone("llama", DEPTH)), StaticSkip(only=(0, 2, 3))
    engine.prefill([Request("a", PROMPTS[0], 3)], method)
    weigh(engine, [Question("a", ((PROMPTS[0], PROMPTS[1]),))], method)
    assert len(kept) == 2 and not any(view.trail for view in kept)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda view: view.at_least(view.hidden.mean(-1) * 0 / 0, 0.5), "a score that is not a number before layer 2"),
        (lambda view: 7, r"answered 7; an action is .*\(.*test_live_view\.py, line \d+\)$"),
        (lambda view: view.hidden[:, :3] @ view.hidden, r"failed before layer 2 at step 0: RuntimeError"),
        (lambda view: Route(True, scale=torch.full((len(view.row),), torch.nan)), "not finite, under method Faulty"),
    ],
)
def test_what_a_method_does_wrong_is_its_own_fault(fault, message):
    class Faulty(Method):
        def route(self, view):
            return fault(view) if view.layer == 2 else Action.RUN

    engine = Engine(tiny_models.backbone("llama", DEPTH))
    with pytest.raises(MethodError, match=message) as error:
        engine.prefill([Request("a", PROMPTS[0], 3)]).decode(Faulty())
    assert "not finite" in message or "test_live_view.py, line " in str(error.value)
