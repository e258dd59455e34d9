"""Models with recurrent layers: a skipped layer leaves its state as it was, whatever else happens to the row."""

from types import SimpleNamespace

import pytest
import replay
import replay_states
import tiny_models
import torch
from test_families import Halved, Leaves, Pieces
from test_full_depth import LIMIT, generate
from tiny_models import HYBRIDS
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.evaluation.settings import Conditions
from dlbench.method import Action
from dlbench.methods.full import Full
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.self_speculation import SelfSpeculation
from dlbench.methods.short_gpt import ShortGpt
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap
from dlbench.models.exit_head import exit_head
from dlbench.running.planner import lacks_states

PROMPTS = tiny_models.prompts(3)
LIMITS = [7, 3, 6]
COUNT = 5
MANY = sorted(tiny_models.prompts(COUNT, longest=12), key=len)
TOLERANCE = 2e-4  # transformers computes states in float32


def requests(prompts=PROMPTS, limits=LIMITS):
    return [Request(str(i), p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]


def countable(family):
    """A backbone whose attention and experts are products that torch's counter knows."""
    if not family.endswith("_moe"):
        return tiny_models.backbone(family, attention="eager")
    return wrap(tiny_models.build(family, attention="eager", experts="eager"), name=family)


def check(monkeypatch, backbone, method, kv, asked, slots=None):
    """Hold every logit of every row against the replay."""
    recorded = replay.Recorded(method)
    wave = Engine(backbone).prefill(asked, slots=slots)
    with replay.watched_logits(monkeypatch) as seen:
        written = wave.decode(recorded, kv=kv)
    for row, generation in enumerate(written):
        codes = recorded.of(recorded.codes, row, len(generation.tokens) - 1)
        expected = replay_states.run(backbone, asked[row].ids, generation.tokens, codes, kv)
        got = torch.stack(seen[row])
        assert bool(torch.isfinite(got).all()) and got.shape == expected.shape
        assert float((got - expected).abs().max()) < TOLERANCE * float(expected.abs().max())
    assert len({tuple(layers) for layers in recorded.ran().values()}) > 3


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize("slots", [None, 3])
def test_full_depth_equals_generate(family, slots):
    backbone = tiny_models.backbone(family)
    wave = Engine(backbone).prefill(requests(MANY, [LIMIT] * COUNT), slots=slots)
    expected = generate(backbone.model, MANY)
    for _ in range(2):  # the second time from the same prompts
        assert [g.tokens for g in wave.decode()] == expected


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize("layers", [(1, 3), (0, 2, 4)])
def test_static_skip_equals_the_model_without_those_layers(family, layers):
    backbone, method = tiny_models.backbone(family), StaticSkip(only=layers)
    shorter = tiny_models.without(backbone, layers)
    wave = Engine(backbone).prefill(requests(limits=[LIMIT] * len(PROMPTS)), method)
    assert [g.tokens for g in wave.decode(method)] == generate(shorter, PROMPTS)


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize(("method", "kv"), [(Pieces, "project"), (Pieces, "evict"), (Leaves, "recompute")])
def test_every_logit_equals_the_replay(monkeypatch, family, method, kv):
    for slots in (None, 2):  # all rows from the beginning, or two at a time
        check(monkeypatch, tiny_models.backbone(family), method(), kv, requests(), slots)


@pytest.mark.parametrize("family", HYBRIDS)
def test_the_exit_head_is_the_model_s(family):
    backbone, states = tiny_models.backbone(family), []
    hook = backbone.layers[-1].register_forward_hook(lambda *given: states.append(replay.state(given[-1])))
    with torch.inference_mode():
        logits = backbone.model(torch.tensor([PROMPTS[1]])).logits
    hook.remove()
    assert torch.equal(exit_head(backbone, states[0]), logits)


class Foreseeing(RandomSkip):
    """Skips at random, and looks at what is to come before: that look must leave no trace in a state."""

    uses_future, deployable = True, False

    def route(self, view):
        view.foreseen(view.layer)
        return super().route(view)


@pytest.mark.parametrize("family", HYBRIDS)
def test_looking_ahead_leaves_states_as_they_were(family):
    wave = Engine(tiny_models.backbone(family)).prefill(requests())
    written = [[g.tokens for g in wave.decode(method(share=0.5))] for method in (RandomSkip, Foreseeing)]
    assert written[0] == written[1]


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize(("method", "kv"), [(Pieces, "project"), (Leaves, "recompute")])
def test_executed_flops_equal_torch(family, method, kv):
    """Of prompts, chunked scans and their padding included, and of decoding."""
    engine = Engine(countable(family))
    with FlopCounterMode(display=False) as counter:
        wave = engine.prefill(requests())
        written = wave.decode(method(), kv=kv)
    read = sum(g.prompt_executed for g in written)
    assert read > 0 and read + sum(g.executed for g in written) == counter.get_total_flops()


@pytest.mark.parametrize("family", HYBRIDS)
def test_credited_flops_are_those_of_single_steps(family):
    """What each token needs: a step as torch counts it, less the convolution's output that the step drops."""
    backbone = countable(family)
    costs, prompt = Engine(backbone).costs, PROMPTS[1]
    (g,) = Engine(backbone).prefill([Request("a", prompt, 6)]).decode()
    name = replay_states.cache_argument(type(backbone.model).forward)
    cache = backbone.model(torch.tensor([prompt]), use_cache=True)[name]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        for token in g.tokens[:-1]:
            backbone.model(torch.tensor([[token]]), use_cache=True, **{name: cache})
    dropped = sum(2 * of.channels * of.kernel for of in costs.recurrences if of is not None)
    assert counter.get_total_flops() == g.executed
    assert sum(g.flops.values()) == g.executed - 5 * dropped == costs.dense(len(prompt), 6)


@pytest.mark.parametrize("family", HYBRIDS)
def test_halves_cost_their_share(family):
    engine = Engine(tiny_models.backbone(family))
    (g,) = engine.prefill([Request("a", PROMPTS[0], 6)]).decode(Halved())
    share = engine.costs.parts[int(Action.ATTN)] / engine.costs.layer
    assert g.layers == pytest.approx([2 + share[1] + 1 - share[2]] * 5)


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize("tokens", [1, 67])
def test_executed_flops_of_prompts_of_any_length(family, tokens):
    engine = Engine(countable(family))
    with FlopCounterMode(display=False) as counter:
        (g,) = engine.prefill([Request("a", tuple(range(2, 2 + tokens % 50)) + (5,) * (tokens // 50 * 50), 1)]).decode()
    assert g.prompt_executed == counter.get_total_flops()


def test_records_name_what_becomes_of_a_state():
    def state(family, method, kv=None):
        return Conditions.state(Conditions(tiny_models.backbone(family), SimpleNamespace(), "", kv_policy=kv), method)

    assert state("llama", Full()) is None
    assert state("jamba", Full()) == state("lfm2", RandomSkip(), "evict") == state("lfm2", RandomSkip()) == "hold"
    assert state("falcon_h1", Leaves(), "recompute") == "recompute"


def test_what_cannot_be_served_is_refused():
    jamba, lfm2 = (tiny_models.backbone(family) for family in ("jamba", "lfm2"))
    with pytest.raises(DlbenchError, match="SelfSpeculation takes back rejected drafts"):
        Engine(jamba).prefill(requests()).decode(SelfSpeculation())
    assert "rejected drafts" in lacks_states(SelfSpeculation(), lfm2)
    assert "teacher forcing" in lacks_states(HiddenRouter(), lfm2)
    assert "forgets the first" in lacks_states(ShortGpt(), jamba) and not lacks_states(ShortGpt(), lfm2)
    assert not any(lacks_states(method, jamba) for method in (Full(), RandomSkip(), StaticSkip()))
    assert not lacks_states(SelfSpeculation(), tiny_models.backbone("llama"))
    model = tiny_models.build("lfm2")
    model.model.layers[2].conv.in_proj.bias = torch.nn.Parameter(torch.zeros(96))
    with pytest.raises(DlbenchError, match=r"cannot be read in batches: conv.in_proj of layer 2 has a bias"):
        wrap(model, name="biased")
