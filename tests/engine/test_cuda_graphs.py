"""Captured steps write what plain ones write, and do what graphs can do; a tape stands in for a GPU's graphs."""

import gc

import pytest
import replay
import tape
import tiny_models
import torch
from ready import ready
from test_fused_layer import FUSED
from test_replay import Chaos

from dlbench.engine import Engine, Request
from dlbench.engine.kernels import cuda_graphs
from dlbench.engine.kernels.cuda_graphs import columns_for, rounded
from dlbench.method import Action, Method, Route
from dlbench.methods.calm import Calm
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.self_speculation import SelfSpeculation
from dlbench.methods.static_skip import StaticSkip
from dlbench.registry import methods as registry

DEPTH = 5
PROMPTS = tiny_models.prompts(6)
LIMITS = [8, 3, 6, 1, 8, 4]
REQUESTS = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))]


class Halves(Method):
    """Whole layers, both halves and nothing, mixed in a batch, and all of it multiplied."""

    def route(self, view):
        u = view.uniform(2)
        parts = torch.tensor([int(Action.RUN), int(Action.ATTN), int(Action.MLP), 0])
        return Route((parts[(u[:, 0] * 4).long()]), scale=u[:, 1].float())


METHODS = {
    "full": None,
    "static": StaticSkip(share=0.6),
    "sequence": RandomSkip(share=0.5, per="sequence"),
    "token": RandomSkip(share=0.5),
    "chaos": Chaos(),
    "halves": Halves(),
    "exits": Calm(threshold=0.4, measure="top1", decay="none", check=(1, 2, 3, 4)),
    "bypass": ready(registry.load("flexi_depth").from_params({}), DEPTH),
    "draft": SelfSpeculation(share=0.6),
    "draft-skip": SelfSpeculation(share=0.6, drafts="skip", length=3, stop=0.2),
}


def engines(monkeypatch, family, dtype="float32"):
    """An engine that captures and one that does not, on one model."""
    backbone = tiny_models.backbone(family, DEPTH, dtype=dtype)
    # graphs compute nothing beside what some rows need, which plain steps may, and count as executed
    monkeypatch.setattr("dlbench.engine.layers.gating._SOME", 0)
    plain = Engine(backbone)
    monkeypatch.setattr("dlbench.engine.runtime.recorder", lambda device: tape.record)
    return Engine(backbone), plain


def same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for name in ("tokens", "layers", "routes", "flops", "executed", "acted", "speculation"):
            assert getattr(a, name) == getattr(b, name), name


CASES = [(family, name, 2) for family in FUSED for name in ("full", "chaos")]
CASES += [("llama", name, slots) for name in METHODS for slots in (None, 2)] + [("opt", name, 2) for name in METHODS]


@pytest.mark.parametrize(("family", "name", "slots"), dict.fromkeys(CASES))
def test_writes_what_plain_steps_write(monkeypatch, family, name, slots):
    ours, plain = engines(monkeypatch, family)
    if plain.runtime.fused_model is None:
        assert ours.kernels == "fused"
        return
    assert (ours.kernels, plain.kernels) == ("captured", "fused")
    expected = plain.prefill(REQUESTS, slots=slots).decode(METHODS[name])
    before = tape.Tape.count
    wave = ours.prefill(REQUESTS, slots=slots)
    for _ in range(3):
        same(wave.decode(METHODS[name]), expected)
    assert tape.Tape.count > before
    fresh = tape.Tape.count
    same(wave.decode(METHODS[name]), expected)
    assert tape.Tape.count == fresh  # all there is has been captured


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_drafts_at_the_end_of_the_context(monkeypatch, family):
    ours, plain = engines(monkeypatch, family)
    long = [Request(str(n), (5, 6) * (n // 2), tiny_models.CONTEXT - n) for n in (94, 84)]
    expected = plain.prefill(long).decode()
    wave = ours.prefill(long)
    for _ in range(2):
        assert [g.tokens for g in wave.decode(METHODS["draft"])] == [g.tokens for g in expected]


def test_a_routed_prompt(monkeypatch):
    ours, plain = engines(monkeypatch, "llama")
    method = METHODS["static"]
    expected = plain.prefill(REQUESTS, method).decode(method)
    wave = ours.prefill(REQUESTS, method)
    for _ in range(3):
        same(wave.decode(method), expected)
    assert set(wave.chunks[0].cache.memory.layers) == method.live(DEPTH)


@pytest.mark.parametrize("kv", ["evict", "recompute"])
def test_what_is_not_captured_runs_as_it_stands(monkeypatch, kv):
    ours, plain = engines(monkeypatch, "llama")
    method = METHODS["exits"]
    before = tape.Tape.count
    wave = ours.prefill(REQUESTS)
    for _ in range(2):
        same(wave.decode(method, kv=kv), plain.prefill(REQUESTS).decode(method, kv=kv))
    assert tape.Tape.count == before
    same(wave.decode(), plain.prefill(REQUESTS).decode())


@pytest.mark.parametrize("family", ["llama", "gemma3", "opt"])
def test_equal_to_a_replay_without_a_cache(monkeypatch, family):
    monkeypatch.setattr("dlbench.engine.runtime.recorder", lambda device: tape.record)
    backbone = tiny_models.backbone(family, DEPTH)
    for _ in range(2):
        replay.check(monkeypatch, backbone, Chaos(), PROMPTS, LIMITS, tolerance=1e-4)


def test_layers_that_nobody_runs_launch_nothing(monkeypatch):
    ours, _ = engines(monkeypatch, "llama")
    method = StaticSkip(only=(1, 3))
    launched = []
    do = cuda_graphs.GraphSteps._replay

    def noted(self, key, work):
        launched.append(key[0])
        do(self, key, work)

    monkeypatch.setattr(cuda_graphs.GraphSteps, "_replay", noted)
    generations = ours.prefill(REQUESTS[:1]).decode(method)
    assert launched == ["enter", 1, 3, "leave"] * len(generations[0].layers)


def test_the_next_wave_uses_what_was_captured(monkeypatch):
    ours, plain = engines(monkeypatch, "llama")
    expected = plain.prefill(REQUESTS).decode()
    wave = ours.prefill(REQUESTS)
    for _ in range(3):
        wave.decode()
    held, count = wave.nbytes(), tape.Tape.count
    del wave
    gc.collect()
    assert ours.idle_bytes() > held
    wave = ours.prefill(REQUESTS[1:])
    same(wave.decode(), expected[1:])
    assert ours.idle_bytes() == 0
    other = ours.prefill(REQUESTS)  # the first is still in use
    same(other.decode(), expected)
    same(wave.decode(), expected[1:])
    assert tape.Tape.count > count
    ours.release()
    same(wave.decode(), expected[1:])
    del wave, other
    gc.collect()
    ours.release()
    assert ours.idle_bytes() == 0


def test_a_wave_lets_go_of_its_memory_by_itself(monkeypatch):
    ours, _ = engines(monkeypatch, "llama")
    gc.disable()
    try:
        for slots in (None, 2):
            for name in ("full", "chaos", "draft"):
                wave = ours.prefill(REQUESTS, slots=slots)
                wave.decode(METHODS[name])
                assert not all(memory.idle for memory in ours.runtime.graph_pool._memories)
                del wave
                assert all(memory.idle for memory in ours.runtime.graph_pool._memories)
    finally:
        gc.enable()


def test_what_cannot_be_captured_is_said(monkeypatch):
    ours, plain = engines(monkeypatch, "llama")

    def fails(work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")

    ours.runtime.graph_pool._record = fails
    assert ours.kernels == "captured"
    wave, method = ours.prefill(REQUESTS), METHODS["token"]
    same(wave.decode(method), plain.prefill(REQUESTS).decode(method))  # tokens before the failure are still owed
    same(wave.decode(), plain.prefill(REQUESTS).decode())
    same(ours.prefill(REQUESTS).decode(), plain.prefill(REQUESTS).decode())
    assert ours.kernels == "fused"
    assert ours.kernels_note == "not captured: operation not permitted when stream is capturing"

    ours, _ = engines(monkeypatch, "llama")

    def full(work):
        raise torch.OutOfMemoryError("CUDA out of memory")

    ours.runtime.graph_pool._record = full
    with pytest.raises(torch.OutOfMemoryError):  # fewer rows may fit
        ours.prefill(REQUESTS).decode()
    assert ours.kernels == "captured"


def test_sizes():
    assert [rounded(n, 12) for n in (1, 2, 3, 4, 5, 8, 9, 12)] == [1, 2, 4, 4, 8, 8, 12, 12]
    assert [columns_for(n, 500) for n in (1, 64, 65, 96, 97, 128, 129, 193, 300, 400, 500)] == (
        [64, 64, 96, 96, 128, 128, 192, 256, 384, 500, 500]
    )
    for n in range(1, 300):
        assert n <= columns_for(n, 300) <= 300


def test_nothing_is_captured_on_a_cpu():
    assert cuda_graphs.recorder(torch.device("cpu")) is None


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_slots_that_nobody_is_in_point_nowhere(monkeypatch, family):
    """Rounding takes them along; where rows were long ago lies outside the tables of positions."""
    ours, plain = engines(monkeypatch, family)
    limits = [30, 30, 30, 25, 25, 25, 30]  # the last four begin; three enter at step 25, and one slot is left at 30
    prompts = [tuple(2 + (i * 7 + j) % 50 for j in range(60 + i)) for i in range(len(limits))]
    several = [Request(str(i), p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]
    expected = plain.prefill(several, slots=4).decode()
    wave = ours.prefill(several, slots=4)
    for _ in range(2):
        same(wave.decode(), expected)
