"""Self-speculation writes what full depth writes, whatever drafts, and keeps an honest account."""

import time
from statistics import median

import pytest
import tiny_models
import torch
from test_families import ALIBI
from test_full_depth import LIMIT, generate
from transformers import LlamaConfig, LlamaForCausalLM

from dlbench.engine import Engine, Request
from dlbench.errors import DlbenchError
from dlbench.methods.self_speculation import SelfSpeculation
from dlbench.models.backbone import wrap

DEPTH = 5
PROMPTS = sorted(tiny_models.prompts(9, longest=12), key=len)
DRAFTS = {
    "prefix": SelfSpeculation(share=0.6),
    "prefix-short": SelfSpeculation(share=0.2, length=2),
    "one": SelfSpeculation(share=0.4, length=1),
    "skip": SelfSpeculation(share=0.6, drafts="skip", length=3),
    "without-the-first": SelfSpeculation(only=(1, 2, 4)),
    "all-layers": SelfSpeculation(only=tuple(range(DEPTH)), length=3),
    "stops": SelfSpeculation(share=0.6, length=6, stop=0.2),
    "stops-at-once": SelfSpeculation(share=0.6, drafts="skip", stop=1.0),
}


def requests(limits=None):
    several = limits or [LIMIT] * len(PROMPTS)
    return [Request(str(i), p, n) for i, (p, n) in enumerate(zip(PROMPTS, several, strict=True))]


@pytest.mark.parametrize("family", tiny_models.EVERY)
@pytest.mark.parametrize(("name", "slots"), [("prefix", None), ("skip", 2), ("stops", 2)])
def test_writes_what_generate_writes(family, name, slots):
    backbone = tiny_models.backbone(family, DEPTH, "eager" if family in ALIBI else "sdpa")
    wave = Engine(backbone).prefill(requests(), slots=slots)
    assert [g.tokens for g in wave.decode(DRAFTS[name])] == generate(backbone.model, PROMPTS)


@pytest.mark.parametrize("name", DRAFTS)
def test_every_draft_in_every_batch(name):
    engine = Engine(tiny_models.backbone("llama", DEPTH, dtype="float64"))
    limits = [1, 9, 2, 14, 1, 5, 14, 3, 8]
    full = [g.tokens for g in engine.prefill(requests(limits)).decode()]
    found = {}
    for slots in (1, 2, 9):
        wave = engine.prefill(requests(limits), slots=slots)
        for _ in range(2):  # the prompts stay as they were
            written = wave.decode(DRAFTS[name])
            assert [g.tokens for g in written] == full
        assert [g.tokens for g in wave.decode()] == full
        found[slots] = [(g.layers, g.flops, g.speculation) for g in written]
    assert found[1] == found[2] == found[9]


@pytest.mark.parametrize("family", ["gpt2", "opt", "gpt_neo", "llama", "mpt"])
@pytest.mark.parametrize("name", ["prefix", "skip"])
def test_texts_may_fill_the_context(family, name):
    """A row without room waits for others to draft, and has no position left for the tokens that it is run with."""
    attention = "eager" if family in tiny_models.EAGER_ONLY else "sdpa"
    backbone = tiny_models.backbone(family, 4, attention)
    assert backbone.context == tiny_models.CONTEXT
    generator = torch.Generator().manual_seed(0)
    lengths = [93, 91, 86, 90]
    prompts = [tuple(torch.randint(2, tiny_models.VOCABULARY, (n,), generator=generator).tolist()) for n in lengths]
    filling = [Request(str(i), p, tiny_models.CONTEXT - len(p)) for i, p in enumerate(prompts)]
    engine, method = Engine(backbone), DRAFTS[name]
    alone = [engine.prefill([r]).decode(method)[0].tokens for r in filling]
    assert alone == [engine.prefill([r]).decode()[0].tokens for r in filling]
    assert [len(tokens) for tokens in alone] == [r.limit for r in filling]
    for slots in (2, 4):
        assert [g.tokens for g in engine.prefill(filling, slots=slots).decode(method)] == alone


def test_ends_in_the_middle_of_a_draft(monkeypatch):
    monkeypatch.setattr("dlbench.engine.decoding.near_tie_below", lambda precision: 1e9)  # every choice is noted
    model = tiny_models.build("llama", depth=DEPTH)
    free = generate(model, PROMPTS)
    model.generation_config.eos_token_id = eos = [free[0][3], free[4][1], free[8][7]]
    expected = generate(model, PROMPTS, eos)
    assert len({len(tokens) for tokens in expected}) > 2
    for method in DRAFTS.values():
        written = Engine(wrap(model)).prefill(requests(), slots=4).decode(method)
        assert [g.tokens for g in written] == expected
        assert all(len(g.layers) == len(g.tokens) - 1 for g in written)
        assert all([step for step, _ in g.near_ties] == list(range(len(g.tokens))) for g in written)


def planted(upper):
    """A model of six layers whose layers from `upper` on add nothing: a draft of the first ones is always right."""
    model = tiny_models.build("llama", depth=6)
    with torch.no_grad():
        for layer in model.model.layers[upper:]:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.zero_()
                linear.bias.zero_()
    return wrap(model)


def test_the_account_of_a_perfect_draft():
    """13 tokens after the first, four a round: 4 + 4 + 4 + 1; three layers draft, the other three verify."""
    engine = Engine(planted(3))
    (g,) = engine.prefill([Request("a", PROMPTS[3], 14)]).decode(SelfSpeculation(share=0.5, length=4))
    assert g.speculation == (13, 13, 4)
    assert (g.layers == [6.0] * 13 and g.routes == [(b"\3" * 6, 13)]) or sum(n for _, n in g.routes) == 13
    costs, context = engine.costs, len(PROMPTS[3])
    assert g.flops["layers"] == 13 * int(costs.layer.sum())
    assert g.flops["heads"] == 2 * 13 * costs.head  # a draft's head, and the verifier's
    starts = [context, context + 4, context + 8, context + 12]
    drafted = 3 * sum(context + 1 + i for i in range(13))
    verified = 3 * sum(n * (s + n) for s, n in zip(starts, (4, 4, 4, 1), strict=True))
    assert g.flops["attention"] == (drafted + verified) * int(costs.attention_per_key[0])
    (all_again,) = engine.prefill([Request("a", PROMPTS[3], 14)]).decode(SelfSpeculation(only=(0, 1, 2, 4)))
    assert all_again.speculation == (13, 13, 4)
    assert all_again.layers == [10.0] * 13  # four layers draft, and all six verify: nothing of it is kept


def test_the_account_of_a_useless_draft():
    """Every draft fails: one token a round, and all that was drafted is paid for."""
    model = tiny_models.build("llama", depth=4, seed=1)
    with torch.no_grad():
        model.model.layers[3].mlp.down_proj.bias.mul_(400)  # the last layer decides, and no draft knows it
    (g,) = Engine(wrap(model)).prefill([Request("a", PROMPTS[3], 9)]).decode(SelfSpeculation(share=0.75, length=3))
    drafted, accepted, rounds = g.speculation
    assert accepted == 0 and rounds == 8 and drafted == 3 * 6 + 2 + 1  # the last two rounds have less to write
    assert g.layers == [3 * 3 + 3 * 1.0] * 6 + [2 * 3 + 2.0] + [3 + 1.0]


def test_a_draft_ends_after_an_unsure_token():
    engine = Engine(planted(3))
    wave = engine.prefill([Request("a", PROMPTS[3], 14)])
    (always,) = wave.decode(SelfSpeculation(share=0.5, length=4, stop=1.0))
    assert always.speculation == (13, 13, 13)
    (some,) = wave.decode(SelfSpeculation(share=0.5, length=8, stop=0.2))
    (never,) = wave.decode(SelfSpeculation(share=0.5, length=8))
    assert never.speculation[2] < some.speculation[2] < 13


def test_what_cannot_be():
    with pytest.raises(ValueError, match="share must lie in"):
        SelfSpeculation(share=1.0)
    with pytest.raises(ValueError, match="length must be at least 1"):
        SelfSpeculation(length=0).validate(DEPTH)
    with pytest.raises(ValueError, match=r"layers \[1, 9\] do not fit"):
        SelfSpeculation(only=(1, 9)).validate(DEPTH)
    wave = Engine(tiny_models.backbone("llama", DEPTH)).prefill(requests())
    with pytest.raises(DlbenchError, match="does not sample"):
        wave.decode(DRAFTS["prefix"], sample=1)


def test_is_faster_than_full_depth_where_the_drafter_is_good():
    """Twelve layers of which the last nine do nothing: a draft of the first three always stands."""
    torch.manual_seed(0)
    size = {"hidden_size": 512, "intermediate_size": 1536, "num_attention_heads": 8, "num_hidden_layers": 12}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=200, max_position_embeddings=64, eos_token_id=None, **size))
    with torch.no_grad():
        for layer in model.model.layers[3:]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    wave = Engine(wrap(model), metered=False).prefill([Request("a", (5, 6, 7), 49)])
    draft = SelfSpeculation(share=0.25, length=8)
    full, drafted = [], []
    for _ in range(6):
        for times, method in ((full, None), (drafted, draft)):
            start = time.perf_counter()
            (text,) = wave.decode(method)
            times.append(time.perf_counter() - start)
    assert text.tokens == wave.decode()[0].tokens
    assert text.speculation is not None and text.speculation[0] == text.speculation[1]
    assert median(drafted[1:]) < 0.8 * median(full[1:])
