"""What prompts begin with alike is read once: the same texts, the same credited FLOPs, fewer executed ones."""

import numpy as np
import pytest
import tiny_models
import torch
from test_cuda_graphs import engines
from test_flops import METHODS
from test_full_depth import LIMIT, generate
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.engine.flops.costs import Costs
from dlbench.engine.flops.ledger import Ledger
from dlbench.engine.proof import at_load
from dlbench.engine.shared_prefix import Prefix, PrefixSharing, shared
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap

DEPTH = 5
COMMON = 45
RESTS = (4, 1, 9, 6)
"""Tokens of each prompt after the common ones."""


def prompts(rests=RESTS, seed=0):
    """Prompts that begin alike; another seed gives other tokens after their beginning."""
    begin = torch.randint(2, tiny_models.VOCABULARY, (COMMON,), generator=torch.Generator().manual_seed(7)).tolist()
    generator = torch.Generator().manual_seed(seed)
    rest = [torch.randint(2, tiny_models.VOCABULARY, (n,), generator=generator).tolist() for n in rests]
    for row, tokens in enumerate(rest):
        tokens[0] = 2 + row  # they part here
    return [(*begin, *tokens) for tokens in rest]


def requests(texts=None, limit=LIMIT):
    return [Request(str(i), tuple(p), limit) for i, p in enumerate(texts or prompts())]


def plain(backbone, **options):
    """An engine that reads every prompt whole."""
    engine = Engine(backbone, **options)
    engine.runtime.sharing = PrefixSharing(usable=False)
    return engine


def run_tokens(monkeypatch):
    """Rows and columns of each forward from now on."""
    seen = []
    begin = Ledger.begin

    def note(self, rows, traffic):
        seen.append((len(rows), traffic.columns))
        begin(self, rows, traffic)

    monkeypatch.setattr(Ledger, "begin", note)
    return seen


def facts(generation):
    """What sharing must not change."""
    return (
        generation.tokens,
        generation.layers,
        generation.routes,
        generation.flops,
        generation.executed,
        generation.prompt_flops,
        generation.speculation,
        generation.acted,
    )


@pytest.mark.parametrize("family", tiny_models.EVERY + tiny_models.STEADY + tiny_models.MIXTURES)
@pytest.mark.parametrize(("attention", "kernels"), [("sdpa", "auto"), ("eager", "stock")])
def test_full_depth_equals_generate(monkeypatch, family, attention, kernels):
    backbone = tiny_models.backbone(family, DEPTH, attention)
    engine, forwards = Engine(backbone, kernels=kernels), run_tokens(monkeypatch)
    written = engine.prefill(requests())
    assert forwards == [(1, COMMON), (4, 9)]
    assert [g.tokens for g in written.decode()] == generate(backbone.model, prompts())


@pytest.mark.parametrize("family", tiny_models.RECOGNISED)
def test_recognised_families_share(family):
    backbone = tiny_models.backbone(family, 4)
    engine = Engine(backbone)
    wave, whole = engine.prefill(requests()), plain(backbone).prefill(requests())
    assert engine.runtime.sharing.usable
    torch.testing.assert_close(wave.chunks[0].first, whole.chunks[0].first, rtol=1e-4, atol=1e-4)


def test_a_recognised_model_that_cannot_share_reads_its_prompts_whole(monkeypatch):
    backbone = tiny_models.backbone("granite", 4)
    monkeypatch.setattr(at_load, "_proved", {})
    monkeypatch.setattr(Prefix, "copy_to", lambda self, cache, counts: None)  # as if it did not see the prefix
    engine = Engine(backbone)
    assert [g.tokens for g in engine.prefill(requests()).decode()] == generate(backbone.model, prompts())
    assert not engine.runtime.sharing.usable


@pytest.mark.parametrize("family", (*tiny_models.EVERY, "mixtral"))
@pytest.mark.parametrize("texts", [prompts(), prompts((1, 1, 1, 1, 1))])
def test_executed_equals_torch_and_credited_is_unchanged(family, texts):
    backbone = wrap(tiny_models.build(family, depth=DEPTH, attention="eager", experts="eager"), name=family)
    engine, unshared = Engine(backbone, kernels="stock"), plain(backbone, kernels="stock")
    alone = [unshared.prefill([r]).decode()[0].prompt_flops for r in requests(texts, limit=2)]
    with FlopCounterMode(display=False) as counter:
        wave = engine.prefill(requests(texts, limit=2))
    written = wave.decode()
    executed = sum(g.prompt_executed for g in written)
    assert executed == counter.get_total_flops() > 0
    assert [g.prompt_flops for g in written] == alone
    assert executed < sum(alone) / 2


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "bloom"])
@pytest.mark.parametrize("name", METHODS)
def test_methods_write_the_same(family, name):
    attention, dtype = ("eager", "float32") if family == "bloom" else ("sdpa", "float64")
    backbone = tiny_models.backbone(family, DEPTH, attention, dtype)
    found = [
        engine.prefill(requests(), slots=slots, reads=range(DEPTH + 1)).decode(METHODS[name]())
        for slots in (None, 3)
        for engine in (plain(backbone), Engine(backbone))
    ]
    for one, other in (found[:2], found[2:]):
        assert [facts(g) for g in one] == [facts(g) for g in other]
        assert sum(g.prompt_executed for g in other) < sum(g.prompt_executed for g in one)


@pytest.mark.parametrize("kv", RandomSkip.kv)
@pytest.mark.parametrize("family", ["llama", "mistral-window", "gpt_neo"])
def test_kv_policies_write_the_same(family, kv):
    attention, dtype = ("eager", "float32") if family == "gpt_neo" else ("sdpa", "float64")
    backbone = tiny_models.backbone(family, DEPTH, attention, dtype)
    method = RandomSkip(share=0.5)
    one, other = (e.prefill(requests()).decode(method, kv=kv) for e in (plain(backbone), Engine(backbone)))
    assert [facts(g) for g in one] == [facts(g) for g in other]


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_rows_beyond_the_slots_share_too(monkeypatch, slots):
    backbone = tiny_models.backbone("llama", DEPTH)
    engine, forwards = Engine(backbone), run_tokens(monkeypatch)
    wave = engine.prefill(requests(), slots=slots)
    assert forwards[0] == (1, COMMON) and max(columns for _, columns in forwards[1:]) == 9
    assert [g.tokens for g in wave.decode()] == generate(backbone.model, prompts())


@pytest.mark.parametrize("rests", [RESTS, (1, 1, 1, 1)])
def test_captured_steps_write_the_same(monkeypatch, rests):
    """Where one token is left to each prompt, it takes a captured step, whose logits must outlive the next step."""
    ours, theirs = engines(monkeypatch, "llama")
    theirs.runtime.sharing = PrefixSharing(usable=False)
    mine, whole = (engine.prefill(requests(prompts(rests))) for engine in (ours, theirs))
    for _ in range(3):
        for method in (None, RandomSkip(share=0.5)):
            assert [facts(g) for g in mine.decode(method)] == [facts(g) for g in whole.decode(method)]
    assert ours.kernels == "captured"
    assert sum(g.prompt_executed for g in mine.decode()) < sum(g.prompt_executed for g in whole.decode())


def test_what_a_wave_computes_does_not_depend_on_earlier_ones():
    """So records are the same whichever process reads which prompts, and whether or not a run was interrupted."""
    engine = Engine(tiny_models.backbone("llama", DEPTH))
    waves = [requests(prompts(seed=1)), requests(prompts((3, 3))), requests(prompts((2,)))]
    facts_alone = [[vars(g) for g in Engine(engine.backbone).prefill(wave).decode()] for wave in waves]
    assert [[vars(g) for g in engine.prefill(wave).decode()] for wave in waves] == facts_alone


def test_states_of_prompts_include_the_prefix():
    backbone = tiny_models.backbone("llama", DEPTH, dtype="float64")
    layers = range(DEPTH + 1)
    for several in (prompts(), prompts(seed=3)):
        expected = plain(backbone).prefill(requests(several), reads=layers).states
        found = Engine(backbone).prefill(requests(several), reads=layers, slots=3).states
        for layer in layers:
            for kind in ("last", "mean", "normed_mean"):
                got, wanted = (getattr(x, kind)(layer) for x in (found, expected))
                torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", tiny_models.HYBRIDS + tiny_models.SCALED)
def test_what_cannot_be_shared_is_read_whole(monkeypatch, family):
    engine, forwards = Engine(tiny_models.backbone(family, DEPTH)), run_tokens(monkeypatch)
    engine.prefill(requests(limit=1))
    assert forwards == [(4, COMMON + 9)]
    assert engine.tokens_read(requests()) == 4 * COMMON + sum(RESTS)


def test_prompts_that_a_method_routes_are_read_whole(monkeypatch):
    engine, forwards = Engine(tiny_models.backbone("llama", DEPTH)), run_tokens(monkeypatch)
    engine.prefill(requests())
    del forwards[:]
    engine.prefill(requests(), StaticSkip(only=(1, 3)))
    assert forwards == [(4, COMMON + 9)]


@pytest.mark.parametrize(
    ("texts", "common"),
    [
        ([(1, 2, 3), (1, 2, 4)], 2),
        ([(1, 2, 3), (1, 2, 3)], 2),  # one token is left to each
        ([(1, 2), (1, 2, 3), (1, 2, 3, 4)], 1),
        ([(5, 1, 2), (5, 9, 2), (5, 4)], 1),
        ([(1, 2), (2, 2)], 0),
        ([(7,), (7, 8)], 0),
        ([(3, 4, 5)], 2),
    ],
)
def test_what_prompts_share(texts, common):
    assert shared(texts) == common


def test_what_is_worth_a_forward_of_its_own():
    sharing = PrefixSharing(usable=True, least=4, spared=12)
    four, three = tuple(range(4)), tuple(range(3))
    assert sharing.tokens([(*four, 7), (*four, 8), (*four, 9), (*four, 6)]) == 4
    assert sharing.tokens([(*four, 7), (*four, 8), (*four, 9)]) == 0  # spares 8
    assert sharing.tokens([(*three, n) for n in range(9)]) == 0  # too short
    assert sharing.tokens_read([(*four, n) for n in range(4, 8)]) == 8
    assert sharing.tokens_read([(*four, n) for n in range(4, 7)]) == 15
    assert PrefixSharing(usable=False).tokens([(*range(500), n) for n in range(9)]) == 0


def test_shared_flops_are_divided_to_the_last():
    ledger = Ledger(Costs(tiny_models.backbone("llama", DEPTH)), 3)
    ledger.share(11)
    assert np.sort(ledger.executed).tolist() == [3, 4, 4] and sum(ledger.total(0).values()) == 0
