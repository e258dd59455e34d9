"""How the engine carries out every method that is installed, on tiny random models, after a fit that was random."""

import pytest
import replay
import tiny_models
import torch
from masked_keys import masked
from ready import discovered, label, ready

from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.method import Draft, Exit, Method, Router, Static
from dlbench.methods.flexi_depth import FlexiDepth
from dlbench.registry import methods as registry

DEPTH, COUNT = 5, 6
PROMPTS = tiny_models.prompts(COUNT)
LIMITS = [8, 3, 6, 1, 8, 4]
EVERY = [pytest.param(name, params, id=label(name, params)) for name, params in discovered()]
METHODS = [p for p in EVERY if not issubclass(registry.load(p.values[0]), Draft)]
MODELS = (("llama", "sdpa", "float64"), ("gpt2", "eager", "float32"))


def make(name, params):
    method = ready(registry.load(name).from_params(params), DEPTH)
    method.validate(DEPTH)
    return method


def requests():
    return [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))]


def facts(generation):
    return generation.tokens, generation.layers, generation.routes, generation.flops, generation.speculation


@pytest.mark.parametrize(("name", "params"), METHODS)
@pytest.mark.parametrize(("family", "attention", "dtype"), MODELS)
def test_cached_equals_replay(monkeypatch, name, params, family, attention, dtype):
    backbone, method = tiny_models.backbone(family, DEPTH, attention, dtype), make(name, params)
    for kv in method.kv if method.scope == "token" else (None,):
        # a module of the method's own that adds to the states works in float32 whatever the dtype
        exact = dtype == "float64" and not isinstance(method, FlexiDepth)
        tolerance = 1e-9 if exact else 1e-4
        replay.check(monkeypatch, backbone, method, PROMPTS, LIMITS, tolerance=tolerance, kv=kv)


@pytest.mark.parametrize(("name", "params"), EVERY)
def test_executed_is_credited_at_batch_1(name, params):
    """But for keys that `evict` masks: a kernel computes their scores, and they are no part of the context."""
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    method = make(name, params)
    for request in requests()[::4]:
        wave = engine.prefill([request], reads=method.reads(DEPTH))
        per_token = method.scope == "token" and not isinstance(method, Draft)
        for kv in set(method.kv) - {"recompute"} if per_token else (None,):  # that runs past tokens over all columns
            (written,) = wave.decode(method, kv=kv)
            hidden = masked(written, engine.costs.windows) if (kv or method.kv[0]) == "evict" else 0
            assert written.executed - sum(written.flops.values()) == hidden * int(engine.costs.attention_per_key[0])


@pytest.mark.parametrize(("name", "params"), METHODS)
def test_the_model_is_restored_after_an_exception(name, params):
    backbone, method = tiny_models.backbone("llama", DEPTH), make(name, params)
    wave = Engine(backbone).prefill(requests(), reads=method.reads(DEPTH))
    expected = [facts(g) for g in wave.decode(method)]
    asked = []

    def interrupt(*_):
        asked.append(1)
        if len(asked) == 3:
            raise ZeroDivisionError

    handle = backbone.model.lm_head.register_forward_pre_hook(interrupt)
    try:
        with pytest.raises((ZeroDivisionError, DlbenchError)):  # named where a method was asking
            wave.decode(method)
    finally:
        handle.remove()
    assert not any("forward" in vars(module) for module in backbone.model.modules())
    assert [facts(g) for g in wave.decode(method)] == expected


def test_every_kind_is_there():
    kinds = [type(make(p.values[0], p.values[1])) for p in EVERY]
    for kind in (Method, Static, Exit, Router, Draft):
        assert any(issubclass(k, kind) for k in kinds)
    assert torch.get_num_threads() == 1  # what is compared to the last digit is not left to a schedule
