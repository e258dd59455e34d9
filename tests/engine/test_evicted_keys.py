"""Keys that `evict` hides are executed, since a kernel computes their scores and masks them, but not credited.

What is right is counted from the routes of the samples.
"""

import pytest
import tiny_models
from masked_keys import masked
from ready import ready
from test_families import Leaves, Pieces
from test_replay import Chaos
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.method import Action, Method
from dlbench.methods.d_llm import DLlm
from dlbench.methods.random_skip import RandomSkip

DEPTH = 5
PROMPTS = tiny_models.prompts(6)
LIMITS = [8, 3, 6, 1, 8, 4]
METHODS = {
    "chaos": Chaos,
    "pieces": Pieces,
    "leaves": Leaves,
    "random": lambda: RandomSkip(share=0.5),
    "d_llm": lambda: ready(DLlm(inner=8, first=1, warm_up=0), DEPTH, seed=2),
}
FAMILIES = ("llama", "mistral-window", "gemma3")
"""Without a window, with one in every layer, and with one in some; `test_families.py` takes all."""


def requests():
    return [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, LIMITS, strict=True))]


def engine_of(family, **options):
    return Engine(tiny_models.backbone(family, DEPTH, **options))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_executed_is_credited_plus_the_masked_keys_at_batch_1(family, name):
    engine = engine_of(family, attention="eager")
    found = 0
    for request in requests()[:3]:
        wave = engine.prefill([request])
        with FlopCounterMode(display=False) as counter:
            (written,) = wave.decode(METHODS[name](), kv="evict")
        assert written.executed == counter.get_total_flops()
        keys = masked(written, engine.costs.windows)
        assert written.executed - sum(written.flops.values()) == keys * int(engine.costs.attention_per_key[0])
        found += keys
    assert found > 0


@pytest.mark.parametrize("family", ["llama", "gemma3"])
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("chaos", "pieces")])  # see their neighbours
@pytest.mark.parametrize("slots", [2, 6])
def test_what_is_credited_does_not_see_the_batch(family, name, slots):
    """Rows enter, leave, change slots and move to the left: what is hidden from them follows."""
    engine = engine_of(family, dtype="float64")
    together = engine.prefill(requests(), slots=slots).decode(METHODS[name](), kv="evict")
    alone = [engine.prefill([r]).decode(METHODS[name](), kv="evict")[0] for r in requests()]
    assert [g.routes for g in together] == [g.routes for g in alone]
    assert sum(masked(g, engine.costs.windows) for g in together) > 0
    assert [g.flops for g in together] == [g.flops for g in alone]


def test_by_hand():
    """Three decode forwards after three tokens: layer 1 is skipped first, and run twice without that key."""

    class Once(Method):
        def route(self, view):
            return view.step > 0 if view.layer == 1 else Action.RUN

    engine = engine_of("llama")
    per_key = int(engine.costs.attention_per_key[0])
    for kv, keys in (("project", (4 + 5 + 6) * 4 + (5 + 6)), ("evict", (4 + 5 + 6) * 4 + (4 + 5))):
        (written,) = engine.prefill([Request("a", (5, 6, 7), 4)]).decode(Once(), kv=kv)
        assert written.flops["attention"] == keys * per_key
        assert (written.flops["kv"] > 0) == (kv == "project")


def test_a_half_without_attention_reads_no_keys():
    """The feed-forward alone runs in a layer with hidden keys: nothing is charged or taken off for attention."""

    class Halves(Method):
        def route(self, view):
            return (Action.SKIP, Action.MLP, Action.ATTN)[int(view.step[0])] if view.layer == 2 else Action.RUN

    engine = engine_of("llama")
    (written,) = engine.prefill([Request("a", (5, 6, 7), 4)]).decode(Halves(), kv="evict")
    assert written.flops["attention"] == ((4 + 5 + 6) * 4 + 4) * int(engine.costs.attention_per_key[0])


def test_an_engine_that_counts_nothing_takes_nothing_off():
    engine = Engine(tiny_models.backbone("llama", DEPTH), metered=False)
    for generation in engine.prefill(requests()).decode(Chaos(), kv="evict"):
        assert not sum(generation.flops.values()) and not generation.executed
