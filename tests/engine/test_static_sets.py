"""A static skip under `prompt = routed` is the model with the other layers deleted; under `prompt = full` it is not."""

import copy

import pytest
import tiny_models
from test_full_depth import EACH, LIMIT, generate

from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.families import resolve
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_exit import StaticExit
from dlbench.methods.static_skip import StaticSkip

SETS = [(0, 2, 4), (1, 3), (2,), (0, 1, 2), (1, 2, 3, 4), (0, 1, 2, 3, 4)]


def without(backbone, layers):
    """A copy of the model that has only these layers, numbered from 0."""
    model = copy.deepcopy(backbone.model)
    found = resolve(model, backbone.family.layers)
    kept = [found[i] for i in layers]
    del found[:]
    for number, layer in enumerate(kept):
        found.append(layer)
        for module in layer.modules():
            for name in {"layer_idx", "layer_id"} & vars(module).keys():
                setattr(module, name, number)
    model.config.num_hidden_layers = len(layers)
    return model


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
