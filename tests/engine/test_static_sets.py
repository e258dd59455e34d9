"""A static skip under `prompt = routed` is the model with the other layers deleted; under `prompt = full` it is not."""

import pytest
import tiny_models
from test_full_depth import EACH, LIMIT, generate
from tiny_models import without

from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError, MethodError
from dlbench.method import Static
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_exit import StaticExit
from dlbench.methods.static_skip import StaticSkip

SETS = [(0, 2, 4), (1, 3), (2,), (0, 1, 2), (1, 2, 3, 4), (0, 1, 2, 3, 4)]


def requests(prompts):
    return [Request(str(i), p, LIMIT) for i, p in enumerate(prompts)]


@pytest.mark.parametrize(("family", "attention"), EACH)
@pytest.mark.parametrize("layers", SETS)
def test_routed_static_skip_equals_the_model_without_those_layers(family, attention, layers):
    backbone = tiny_models.backbone(family, attention=attention)
    prompts = tiny_models.prompts(4)
    method = StaticSkip(only=layers)
    wave = Engine(backbone).prefill(requests(prompts), method)
    written = wave.decode(method)
    assert [g.tokens for g in written] == generate(without(backbone, layers), prompts)
    assert all(g.layers == [len(layers)] * (LIMIT - 1) for g in written)
    assert [g.acted for g in written] == [len(layers) < 5] * 4


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_routed_random_sequences_equal_the_model_without_their_layers(family):
    backbone = tiny_models.backbone(family)
    prompts = tiny_models.prompts(8)
    method = RandomSkip(share=0.5, per="sequence")
    drawn = {}

    class Watching(RandomSkip):
        def route(self, view):
            run = super().route(view)
            for row, yes in zip(view.row.tolist(), run.tolist(), strict=True):
                drawn.setdefault(row, set()).update([view.layer] if yes else [])
            return run

    watching = Watching(share=0.5, per="sequence")
    Engine(backbone).prefill(requests(prompts), watching, seed=3)
    written = Engine(backbone).prefill(requests(prompts), method, seed=3).decode(method, seed=3)
    assert len({frozenset(layers) for layers in drawn.values()}) > 2
    for row, prompt in enumerate(prompts):
        layers = sorted(drawn[row])
        assert written[row].tokens == generate(without(backbone, layers), [prompt])[0]
        assert written[row].layers == [len(layers)] * (LIMIT - 1)


def test_under_a_full_prompt_the_first_token_is_full_depth():
    backbone = tiny_models.backbone("llama")
    prompts = tiny_models.prompts(6)
    full = generate(backbone.model, prompts)
    written = Engine(backbone).prefill(requests(prompts)).decode(StaticSkip(only=(1, 3)))
    assert [g.tokens[0] for g in written] == [tokens[0] for tokens in full]
    assert [g.tokens for g in written] != full
    assert [g.tokens for g in written] != generate(without(backbone, (1, 3)), prompts)


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (
            (3, 3, 3, 3, 0),
            r"Planned runs layer 3, which its layers\(\) leaves out \(.*test_static_sets\.py, line \d+\)",
        ),
        ((3, 3, 0, 0, 2), r"Planned runs layer 4, which its layers\(\) leaves out"),
        ((3, 4, 3, 0, 0), r"actions\(\) gave 4 for layer 1; SKIP \(0\), ATTN \(1\), MLP \(2\) or RUN \(3\) is wanted"),
        ((3, 3, 3, 0), r"actions\(\) gave 4 for 5 layers; one each is wanted"),
    ],
)
def test_a_plan_that_is_not_valid_is_refused(actions, message, routed):
    class Planned(Static):
        def layers(self, depth):
            return frozenset({0, 1, 2})

        def actions(self, depth):
            return actions

    engine, method = Engine(tiny_models.backbone("llama")), Planned()
    with pytest.raises(MethodError, match=message):
        engine.prefill(requests(tiny_models.prompts(2)), method if routed else None).decode(method)


def test_a_wave_routed_by_one_method_refuses_another():
    class Other(StaticSkip):
        pass

    backbone = tiny_models.backbone("llama")
    routed = Engine(backbone).prefill(requests(tiny_models.prompts(2)), StaticSkip(only=(1, 3)), seed=1)
    for other in (None, StaticSkip(only=(1, 2)), StaticExit(), Other(only=(1, 3))):
        with pytest.raises(DlbenchError, match="routed by another method"):
            routed.decode(other, seed=1)
    with pytest.raises(DlbenchError, match="another seed"):
        routed.decode(StaticSkip(only=(1, 3)), seed=2)
    assert routed.decode(StaticSkip(only=(1, 3)), seed=1)


def test_routed_static_sets_hold_no_cache_for_layers_never_run():
    backbone = tiny_models.backbone("llama")
    method = StaticSkip(only=(1, 3))
    whole = Engine(backbone).prefill(requests(tiny_models.prompts(4)))
    wave = Engine(backbone).prefill(requests(tiny_models.prompts(4)), method)
    whole.decode()
    wave.decode(method)
    assert wave.nbytes() * 5 == whole.nbytes() * 2 > 0
