"""Rows that enter as others finish write what they would have written alone, under every policy."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import replay
import tiny_models
from test_batches import METHODS, facts
from test_families import ALIBI, DEPTH, Leaves, Pieces, exact, tolerance
from test_full_depth import LIMIT, generate
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.method import Action, Method
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip

COUNT = 10
PROMPTS = sorted(tiny_models.prompts(COUNT, longest=12), key=len)
LIMITS = [(4 * i) % 9 + 1 for i in range(COUNT)]  # some end with their first token, none with its neighbours


def requests(prompts=PROMPTS, limits=LIMITS):
    return [Request(str(i), p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize("kernels", ["auto", "stock"])
@pytest.mark.parametrize("slots", [1, 3])
def test_full_depth_equals_generate(family, kernels, slots):
    backbone = tiny_models.backbone(family, DEPTH, "eager" if family in ALIBI else "sdpa")
    wave = Engine(backbone, kernels=kernels).prefill(requests(limits=[LIMIT] * COUNT), slots=slots)
    assert not wave.in_place
    assert [g.tokens for g in wave.decode()] == generate(backbone.model, PROMPTS)


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize(("method", "kv"), [(Pieces, "project"), (Pieces, "evict"), (Leaves, "recompute")])
def test_any_pieces(monkeypatch, family, method, kv):
    backbone = exact(family)
    written, ran = replay.check(
        monkeypatch, backbone, method(), PROMPTS, LIMITS, tolerance=tolerance(backbone), kv=kv, slots=3
    )
    assert [len(g.tokens) for g in written] == LIMITS
    assert len({tuple(layers) for layers in ran.values()}) > 4


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("name", METHODS)
def test_slots_do_not_matter(name, slots):
    engine = Engine(tiny_models.backbone("llama", DEPTH, dtype="float64"))
    together = engine.prefill(requests())
    some = engine.prefill(requests(), slots=slots)
    for _ in range(2):  # again from the same prompts, in the cache that the first run has left
        assert [facts(g) for g in some.decode(METHODS[name]())] == [facts(g) for g in together.decode(METHODS[name]())]


@pytest.mark.parametrize("sample", [1, 2])
def test_samples_do_not_see_who_is_there(sample):
    engine = Engine(tiny_models.backbone("llama", DEPTH, dtype="float64"))
    alone = [engine.prefill([r]).decode(sample=sample)[0].tokens for r in requests()]
    assert [g.tokens for g in engine.prefill(requests(), slots=4).decode(sample=sample)] == alone


@pytest.mark.parametrize("method", [lambda: StaticSkip(only=(1, 3)), lambda: RandomSkip(share=0.5, per="sequence")])
def test_routed_prompts(method):
    engine = Engine(tiny_models.backbone("llama", DEPTH, dtype="float64"))
    together = engine.prefill(requests(), method()).decode(method())
    wave = engine.prefill(requests(), method(), slots=3)
    assert [facts(g) for g in wave.decode(method())] == [facts(g) for g in together]
    if isinstance(method(), StaticSkip):
        assert all(set(chunk.cache.memory.layers) == {1, 3} for chunk in wave.chunks) and set(
            wave._moving.memory.layers
        ) == {1, 3}


@pytest.mark.parametrize("name", METHODS)
def test_executed_equals_torch(name):
    engine = Engine(tiny_models.backbone("llama", DEPTH, "eager"))
    wave = engine.prefill(requests(), slots=4)
    with FlopCounterMode(display=False) as counter:
        written = wave.decode(METHODS[name]())
    assert sum(g.executed for g in written) == counter.get_total_flops() > 0


def test_fewer_steps_than_one_batch_after_the_other():
    """A batch takes as many steps as its longest text; with rows entering, all slots are busy nearly to the end."""
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    steps = []

    class Counting(Method):
        batch_dependent = False

        def route(self, view):
            if view.layer == 0:
                steps.append(view.row.tolist())
            return Action.RUN

    class Coupled(Counting):
        batch_dependent = True

    found = {}
    for method in (Counting, Coupled):
        steps.clear()
        texts = engine.prefill(requests(), slots=3).decode(method())
        found[method] = list(steps), [g.tokens for g in texts]
    (entering, texts), (fixed, same) = found[Counting], found[Coupled]
    assert texts == same
    work = sum(n - 1 for n in LIMITS)
    assert sum(map(len, entering)) == sum(map(len, fixed)) == work
    batches = [LIMITS[i : i + 3] for i in range(0, COUNT, 3)]
    assert len(fixed) == sum(max(batch) - 1 for batch in batches)
    assert {frozenset(rows) for rows in fixed} <= {
        frozenset(part) for i in range(0, COUNT, 3) for part in subsets(range(i, min(i + 3, COUNT)))
    }
    assert len(entering) < len(fixed) and len(entering) <= work / 3 + max(LIMITS)
    assert all(len(rows) == 3 for rows in entering[: work // 3 - max(LIMITS)])


def subsets(rows):
    rows = list(rows)
    return [[r for i, r in enumerate(rows) if mask >> i & 1] for mask in range(1, 1 << len(rows))]


def test_columns_move_when_the_cache_is_full():
    """Short texts pass through a cache that is only as long as one prompt and two texts."""
    engine = Engine(tiny_models.backbone("gemma3", DEPTH, dtype="float64"))
    prompts = sorted(tiny_models.prompts(40, longest=6), key=len)
    limits = [2 + i % 4 for i in range(40)]
    wave = engine.prefill(requests(prompts, limits), slots=2)
    written = wave.decode(RandomSkip(share=0.7))
    assert sum(limits) / 2 > 3 * wave._moving.length
    together = engine.prefill(requests(prompts, limits)).decode(RandomSkip(share=0.7))
    assert [facts(g) for g in written] == [facts(g) for g in together]


@dataclass
class Counted(Method):
    """Decides by sequence, and counts how often it is asked."""

    scope = "sequence"
    asked: ClassVar[list[int]] = []

    def route(self, view):
        self.asked.extend(view.step.tolist())
        return view.uniform(1, per="sequence")[:, 0] < 0.5


def test_what_decides_by_sequence_is_asked_at_first_only():
    Counted.asked.clear()
    engine = Engine(tiny_models.backbone("llama", 4))
    requests = [Request(str(i), ids, 9) for i, ids in enumerate(tiny_models.prompts(6))]
    written = engine.prefill(requests, slots=3).decode(Counted())
    assert {len(g.tokens) for g in written} == {9}
    assert len({g.layers[0] for g in written}) > 1 and all(len(set(g.layers)) == 1 for g in written)
    assert Counted.asked.count(0) == 6 * 4 and max(Counted.asked) == 1
