"""Results do not depend on the batch: equal, or the first difference stands at a margin that is named."""

import pytest
import tiny_models
import torch
from ready import ready
from test_flops import DEPTH

from dlbench.engine import Engine, Request
from dlbench.engine.requests import near_tie_below
from dlbench.methods.calm import Calm
from dlbench.methods.hidden_router import HiddenRouter
from dlbench.methods.random_skip import RandomSkip
from dlbench.models.backbone import wrap

COUNT = 64
TOLERANCE = 1e-4
METHODS = {
    "full": lambda: None,
    "random": lambda: RandomSkip(share=0.5),
    "exit": lambda: Calm(threshold=0.2, check=(1, 2, 3, 4)),
    "router": lambda: ready(HiddenRouter()),
}


def documents(count=COUNT, limit=5):
    return [Request(f"document {i}", p, limit) for i, p in enumerate(tiny_models.prompts(count, seed=3))]


def facts(generation):
    """What must not depend on the batch; executed FLOPs count padding and may."""
    return generation.tokens, generation.layers, generation.flops, generation.prompt_flops


def in_batches(engine, requests, size, methods):
    found = {name: [] for name in methods}
    for i in range(0, len(requests), size):
        wave = engine.prefill(requests[i : i + size])
        for name in methods:
            found[name] += wave.decode(METHODS[name]())
    return found


def test_batches_of_1_7_and_64():
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    requests = documents()
    some, whole = (in_batches(engine, requests, size, METHODS) for size in (7, COUNT))
    alone = in_batches(engine, requests[:16], 1, METHODS)
    for name in METHODS:
        for fewer, more in ((some, whole), (alone, some)):
            pairs = list(zip(fewer[name], more[name], strict=False))
            differ = [(a, b) for a, b in pairs if facts(a) != facts(b)]
            assert len(differ) < len(pairs) / 10
            for a, b in differ:
                steps = range(len(a.tokens))
                first = next(i for i in steps if a.tokens[: i + 1] != b.tokens[: i + 1] or a.layers[:i] != b.layers[:i])
                assert any(step <= first and margin < TOLERANCE for step, margin in a.near_ties + b.near_ties)


@pytest.mark.parametrize("family", ["llama", "opt-projected"])
def test_neighbours_do_not_matter(family):
    engine = Engine(tiny_models.backbone(family, DEPTH, dtype="float64"))
    requests = documents(9)
    stranger = Request("stranger", (3,) * 30, 11)
    lonely = engine.prefill(requests[:1])
    alone = {name: facts(lonely.decode(METHODS[name]())[0]) for name in METHODS}
    for neighbours in (requests[1:], [stranger], [stranger, *requests[3:5]]):
        for group, place in (([requests[0], *neighbours], 0), ([*neighbours, requests[0]], -1)):
            wave = engine.prefill(group)
            for name in METHODS:
                assert facts(wave.decode(METHODS[name]())[place]) == alone[name]


def test_noise_belongs_to_the_document_and_the_seed():
    engine = Engine(tiny_models.backbone("llama", DEPTH, dtype="float64"))
    prompt = tiny_models.prompts(1)[0]
    wave = engine.prefill([Request(name, prompt, 12) for name in ("a", "b", "a")])
    a, b, again = wave.decode(RandomSkip(share=0.5), seed=1)
    assert facts(a) == facts(again) and a.tokens != b.tokens
    assert facts(wave.decode(RandomSkip(share=0.5), seed=1)[0]) == facts(a)
    assert facts(wave.decode(RandomSkip(share=0.5), seed=2)[0]) != facts(a)


def test_close_decisions_are_named():
    """Two equal rows of the LM head tie, and so does a threshold that is the confidence itself."""
    model = tiny_models.build("llama", depth=DEPTH)
    engine = Engine(wrap(model))
    request = documents(1, limit=4)
    (plain,) = engine.prefill(request).decode()
    first = plain.tokens[0]
    assert not plain.near_ties
    with torch.no_grad():
        model.lm_head.weight[0] = model.lm_head.weight[first]
    (tied,) = engine.prefill(request).decode()
    assert tied.near_ties[0] == (0, 0.0)
    assert all(margin < near_tie_below("float32") for _, margin in tied.near_ties)


def test_close_thresholds_are_named():
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    wave = engine.prefill(documents(1, limit=4))
    seen = []

    class Watching(Calm):
        def confidence(self, view):
            value = super().confidence(view)
            seen.append((int(view.step), float(value)))
            return value

    wave.decode(Watching(threshold=1.0, check=(2,)))
    step, value = seen[1]
    (near,) = wave.decode(Calm(threshold=value + 2e-5, check=(2,)))
    assert near.layers[step] == DEPTH
    assert [at for at, margin in near.near_ties if abs(margin - 2e-5) < 1e-6] == [step + 1]  # the token it decides
    (over,) = wave.decode(Calm(threshold=value - 2e-5, check=(2,)))
    assert over.layers[step] == 2
    (far,) = wave.decode(Calm(threshold=value + 0.01, check=(2,)))
    assert not any(at == step + 1 for at, _ in far.near_ties)
