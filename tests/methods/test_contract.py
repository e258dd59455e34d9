"""The contract: what holds for every method that is installed, on tiny random models, after a fit that was random."""

import itertools
import json

import numpy as np
import pytest
import replay
import tiny_models
import torch
import toy_task
from masked_keys import masked
from ready import discovered, label, ready

from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.fit import FitProbe
from dlbench.fit.open_loop import record, shares
from dlbench.method import Draft, Exit, Method, Router, Static
from dlbench.methods.flexi_depth import FlexiDepth
from dlbench.models.backbone import wrap
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


def decode(engine, method, several, seed=0, **more):
    wave = engine.prefill(several, reads=method.reads(DEPTH), **more)
    return [facts(g) for g in wave.decode(method, seed=seed)]


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
def test_deterministic_under_a_seed_and_independent_of_neighbours(name, params):
    engine = Engine(tiny_models.backbone("llama", DEPTH, dtype="float64"))
    method = make(name, params)
    together = decode(engine, method, requests(), seed=3)
    assert decode(engine, method, requests(), seed=3) == together
    if not method.batch_dependent:
        assert decode(engine, method, requests(), seed=3, slots=2) == together
        assert [decode(engine, method, [r], seed=3)[0] for r in requests()] == together


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


@pytest.mark.parametrize(("name", "params"), EVERY)
def test_parameters_and_weights_go_through_json_and_safetensors(name, params):
    method = make(name, params)
    stored = json.loads(json.dumps(method.params()))
    again = type(method).from_params(stored)
    again.load_weights(method.weights())
    assert again.params() == method.params() and again == method
    engine = Engine(tiny_models.backbone("llama", DEPTH, dtype="float64"))
    assert decode(engine, again, requests()) == decode(engine, method, requests())


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


@pytest.fixture(scope="module")
def probe():
    backbone = wrap(tiny_models.build("llama", depth=DEPTH), toy_task.Characters())
    documents = toy_task.documents(backbone.model, 12)
    return FitProbe(backbone, toy_task.Scored(), documents[:6], documents[6:])


@pytest.mark.parametrize(
    ("name", "params"),
    [p for p in METHODS if registry.load(p.values[0]).knob is not None],
)
def test_the_knob_is_monotone_under_teacher_forcing(probe, name, params):
    method = make(name, params)
    if not method.tuned or method.batch_dependent:
        pytest.skip("one row, whatever the budgets")
    knob, trace = method.knob, record(probe.references)
    reads = sorted(method.reads(DEPTH))
    prompt = probe.prompts(reads, "tune") if reads else None
    if method.at(0.5, DEPTH) is not None:  # in closed form: the budget is the knob
        found = [shares_at(probe, method.at(b, DEPTH), trace, prompt) for b in np.linspace(0.1, 1, 10)]
    else:
        found = shares(probe.references, method, trace, np.linspace(knob.low, knob.high, 11).tolist(), prompt)
    # noise is drawn for a document and a step, not for a knob: what is drawn once stays drawn
    slack = 0.02 if name == "random_skip" else 1e-9
    assert all(b >= a - slack for a, b in itertools.pairwise(found))
    assert found[-1] > found[0]


def shares_at(probe, method, trace, prompt):
    value = getattr(method, method.knob.name)
    return shares(probe.references, method, trace, [value], prompt)[0]


def test_every_kind_is_there():
    kinds = [type(make(p.values[0], p.values[1])) for p in EVERY]
    for kind in (Method, Static, Exit, Router, Draft):
        assert any(issubclass(k, kind) for k in kinds)
    assert torch.get_num_threads() == 1  # what is compared to the last digit is not left to a schedule
