"""Rotary angles that depend on the length belong to the row: each text is what `generate` writes for it alone."""

import json
from functools import cache

import one_by_one
import pytest
import replay
import small_model
import tape
import tiny_models
import torch
from test_families import Leaves, Pieces, exact, tolerance
from test_full_depth import generate as together
from test_loglikelihood import assert_close
from test_replay import Chaos
from test_static_sets import without
from tiny_models import ORIGINAL, SCALED, STEADY
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine, Request
from dlbench.engine.layers.rotary_tables import RowAngles
from dlbench.engine.loglikelihood import weigh
from dlbench.engine.requests import Question
from dlbench.method import Action
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.self_speculation import SelfSpeculation
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap
from dlbench.models.loading import load

DEPTH, LIMIT = 5, 14
LENGTHS = [3, ORIGINAL - LIMIT + 1, ORIGINAL - LIMIT + 2, ORIGINAL - 1, ORIGINAL, ORIGINAL + 1, 30]
"""Of prompts: of the second all fits that is read, of the third one token does not."""
CROSSING = [False, False, True, True, True, False, False]
TWICE = ("phi3-longrope", "phi3-longrope-window")
"""Families that read a text again."""


def prompts(lengths=LENGTHS, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(2, tiny_models.VOCABULARY, (n,), generator=random).tolist()) for n in lengths]


def requests(texts, limits=None):
    limits = limits or [LIMIT] * len(texts)
    return [Request(str(i), p, n) for i, (p, n) in enumerate(zip(texts, limits, strict=True))]


def tokens(written):
    return [g.tokens for g in written]


def reread(family):
    return [family in TWICE and crosses for crosses in CROSSING]


@cache
def alone(family, layers=None):
    """What `generate` writes for each prompt alone; of the model without the other layers."""
    backbone = tiny_models.backbone(family, DEPTH)
    model = None if layers is None else without(backbone, layers)
    return [one_by_one.generate(backbone, p, LIMIT, model) for p in prompts()]


@pytest.mark.parametrize(("kernels", "slots"), [("auto", None), ("stock", 2)])
@pytest.mark.parametrize("family", [*SCALED, *STEADY])
def test_full_depth_is_the_generate_of_each_prompt_alone(family, kernels, slots):
    engine = Engine(tiny_models.backbone(family, DEPTH), kernels=kernels)
    assert (
        kernels == "stock"
        or family.startswith("falcon")
        or (engine.runtime.fused_model is not None and not engine.kernels_note)
    )
    wave = engine.prefill(requests(prompts()), slots=slots)
    for _ in range(2):  # the prompts stay as they were
        written = wave.decode()
        assert tokens(written) == alone(family)
        assert [g.reread for g in written] == reread(family)


@pytest.mark.parametrize("family", SCALED)
def test_stock_batches_are_something_else(family):
    """Else the test above would show nothing."""
    backbone = tiny_models.backbone(family, DEPTH)
    assert together(one_by_one.fresh(backbone.model, backbone.family.layers), prompts()) != alone(family)


@pytest.mark.parametrize("family", ["phi3-longrope", "llama-longrope", "qwen2-dynamic"])
@pytest.mark.parametrize("length", [ORIGINAL - 1, ORIGINAL, ORIGINAL + 1])
def test_texts_that_end_about_the_boundary(family, length):
    backbone = tiny_models.backbone(family, DEPTH)
    texts, limits = prompts([length] * 3, seed=length), [1, 2, 3]
    written = Engine(backbone).prefill(requests(texts, limits)).decode()
    assert tokens(written) == [one_by_one.generate(backbone, p, n) for p, n in zip(texts, limits, strict=True)]
    read = [length + n - 1 for n in limits]  # the last token is not
    assert [g.reread for g in written] == [family in TWICE and length <= ORIGINAL < n for n in read]


@pytest.mark.parametrize("family", ["phi3-longrope", "qwen2-dynamic"])
def test_neither_neighbours_nor_what_ran_before_matter(family):
    engine = Engine(tiny_models.backbone(family, 3, dtype="float64"))
    texts = requests(prompts())[2:]

    def facts(written):
        return [(g.tokens, g.layers, g.flops, g.prompt_flops, g.reread) for g in written]

    for method, sample in ((RandomSkip(share=0.6), 1), (SelfSpeculation(share=0.6), None)):
        lonely = [facts(engine.prefill([r]).decode(method, sample=sample))[0] for r in texts]
        assert facts(engine.prefill(texts).decode(method, sample=sample)) == lonely
        assert facts(engine.prefill(texts[::-1], slots=2).decode(method, sample=sample)) == lonely[::-1]
        assert facts(engine.prefill(texts[:1]).decode(method, sample=sample)) == lonely[:1]


@pytest.mark.parametrize("family", ["phi3-longrope", "gemma3-longrope", "llama-dynamic", "gpt_neox-dynamic"])
def test_what_the_model_met_before_does_not_matter_and_nothing_is_left(family):
    backbone = wrap(tiny_models.build(family, depth=DEPTH))
    (text,) = prompts([ORIGINAL])
    expected = one_by_one.generate(backbone, text, LIMIT)
    backbone.model(torch.tensor(prompts([60])))  # stock dynamic angles would not forget it at this length
    engine, module = Engine(backbone), one_by_one.rotary(backbone)

    def state():
        plain = {k: int(v) for k, v in vars(module).items() if k.endswith("max_seq_len_cached")}
        return plain, {k: v.tolist() for k, v in module.named_buffers()}, "forward" in vars(module)

    before = state()
    assert tokens(engine.prefill(requests([text])).decode()) == [expected]
    engine.prefill(requests(prompts())).decode(RandomSkip())
    weigh(engine, questions())
    assert state() == before


@pytest.mark.parametrize(("layers", "slots"), [((1, 3), None), ((0, 2, 4), 2)])
@pytest.mark.parametrize("family", ["phi3-longrope", "llama-longrope", "llama-dynamic"])
def test_routed_static_sets_are_the_model_without_the_other_layers(family, layers, slots):
    backbone, method = tiny_models.backbone(family, DEPTH), StaticSkip(only=layers)
    written = Engine(backbone).prefill(requests(prompts()), method, slots=slots).decode(method)
    assert tokens(written) == alone(family, layers)
    assert all(g.layers == [len(layers)] * (LIMIT - 1) for g in written)
    assert [g.reread for g in written] == reread(family)


def test_routed_sequences_are_the_model_without_their_layers():
    backbone = tiny_models.backbone("phi3-longrope", DEPTH)
    method = RandomSkip(share=0.5, per="sequence")
    written = Engine(backbone).prefill(requests(prompts()), method, seed=3, slots=4).decode(method, seed=3)
    sets = set()
    for text, generation in zip(prompts(), written, strict=True):
        ((route, _),) = generation.routes
        layers = tuple(i for i, code in enumerate(route) if code)
        sets.add(layers)
        assert generation.tokens == one_by_one.generate(backbone, text, LIMIT, without(backbone, layers))
    assert len(sets) > 3


def own_angles(backbone, whole):
    """A replay without a cache in which every token has its own angles, and that reads a text twice where we do."""

    def replayed(_, prompt, tokens, codes, kv, scales, bypass):
        count, turn = len(prompt), ORIGINAL
        if backbone.kind != "phi3" or not count <= turn < count + len(tokens) - 1:
            with one_by_one.read_as(backbone, one_by_one.when_read(count, len(tokens))):
                return whole(backbone, prompt, tokens, codes, kv, scales, bypass)
        first = turn - count
        with one_by_one.read_as(backbone, [turn] * turn):
            before = whole(backbone, prompt, tokens[: first + 1], codes[:first], kv, scales[:first], bypass)
        longer = (*prompt, *tokens[:first])  # a prompt now: what it skipped runs
        with one_by_one.read_as(backbone, [turn + 1] * (count + len(tokens))):
            after = whole(backbone, longer, tokens[first:], codes[first:], kv, scales[first:], bypass)
        return torch.cat((before, after[1:]))

    return replayed


LIMITS = [LIMIT, 3, LIMIT, 12, 9, 11, 5]
ANY = [(Chaos, "project", None), (Pieces, "evict", 3), (Leaves, "recompute", 3)]


@pytest.mark.parametrize(("method", "kv", "slots"), ANY)
@pytest.mark.parametrize("family", ["phi3-longrope", "phi3-longrope-window", "gemma3-longrope", "llama-dynamic"])
def test_any_decisions(monkeypatch, family, method, kv, slots):
    backbone = exact(family)
    monkeypatch.setattr(replay, "replay", own_angles(backbone, replay.replay))
    written, ran = replay.check(
        monkeypatch, backbone, method(), prompts(), LIMITS, tolerance=tolerance(backbone), kv=kv, slots=slots
    )
    assert [g.reread for g in written] == reread(family)
    assert len({tuple(layers) for layers in ran.values()}) > 4


@pytest.mark.parametrize("family", ["phi3-longrope", "qwen2-dynamic"])
def test_any_decisions_by_fused_layers(monkeypatch, family):
    backbone = tiny_models.backbone(family, DEPTH)
    monkeypatch.setattr(replay, "replay", own_angles(backbone, replay.replay))
    replay.check(monkeypatch, backbone, Chaos(), prompts(), LIMITS, tolerance=1e-4, slots=3, kernels="auto")


@pytest.mark.parametrize(
    ("family", "method"),
    [("phi3-longrope", Chaos()), ("phi3-longrope", SelfSpeculation(share=0.6)), ("qwen2-dynamic", Chaos())],
)
def test_captured_steps_write_the_same(monkeypatch, family, method):
    backbone = tiny_models.backbone(family, DEPTH)
    plain = Engine(backbone).prefill(requests(prompts()), slots=3).decode(method)
    monkeypatch.setattr("dlbench.engine.runtime.recorder", lambda device: tape.record)
    engine = Engine(backbone)
    for _ in range(3):  # what is met for the second time is captured
        written = engine.prefill(requests(prompts()), slots=3).decode(method)
        assert engine.kernels == "captured" and tokens(written) == tokens(plain)
        assert [(g.reread, g.layers, g.flops) for g in written] == [(g.reread, g.layers, g.flops) for g in plain]


def test_layers_that_wait_on_disk_write_the_same(tmp_path):
    angles = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    folder = small_model.save(tmp_path / "model", context=ORIGINAL, rope_parameters=angles)
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{i}": "disk" if i % 2 else "cpu" for i in range(4)}
    (tmp_path / "map.json").write_text(json.dumps(places))
    apart = load(str(folder), device_map=str(tmp_path / "map.json"))
    apart.model.generation_config.eos_token_id = []
    module = one_by_one.rotary(apart)
    hooks = vars(module)["_hf_hook"], vars(module)["forward"]
    expected = [one_by_one.generate(load(str(folder)), p, LIMIT) for p in prompts()]
    assert tokens(Engine(apart, kernels="stock").prefill(requests(prompts())).decode()) == expected
    assert hooks == (vars(module)["_hf_hook"], vars(module)["forward"])


DRAFTS = {
    "prefix": SelfSpeculation(share=0.6, length=6),
    "skip": SelfSpeculation(share=0.6, drafts="skip", length=4),
    "stops": SelfSpeculation(share=0.4, stop=0.2),
}


@pytest.mark.parametrize(("draft", "slots"), [("prefix", None), ("skip", 2), ("stops", 3)])
@pytest.mark.parametrize("family", ["phi3-longrope", "llama-longrope", "qwen2-dynamic"])
def test_speculation_writes_what_generate_writes(family, draft, slots):
    engine = Engine(tiny_models.backbone(family, DEPTH))
    written = engine.prefill(requests(prompts()), slots=slots).decode(DRAFTS[draft])
    assert tokens(written) == alone(family)
    assert [g.reread for g in written] == reread(family)


def test_methods_that_look_ahead_or_are_coupled_write_the_same():
    class Everything(Pieces):
        uses_future = batch_dependent = True

        def route(self, view):
            return Action.RUN

    engine = Engine(tiny_models.backbone("phi3-longrope", DEPTH))
    assert tokens(engine.prefill(requests(prompts())).decode(Everything())) == alone("phi3-longrope")


def questions():
    answers = [(7,), (9,), (5, 11, 3, 8), (2, 4)]
    return [Question(f"q{i}", tuple((p, a) for a in answers)) for i, p in enumerate(prompts())]


def plain(backbone, model, question):
    found = []
    for context, continuation in question.answers:
        text = torch.tensor([[*context, *continuation][:-1]])
        with torch.inference_mode():
            logits = one_by_one.fresh(model, backbone.family.layers)(input_ids=text, use_cache=False).logits[0].float()
        predicted = torch.log_softmax(logits[-len(continuation) :], -1)
        wanted = torch.tensor(continuation)
        found.append((float(predicted.gather(-1, wanted[:, None]).sum()), bool((predicted.argmax(-1) == wanted).all())))
    return found


@pytest.mark.parametrize("layers", [None, (0, 2, 3)])
@pytest.mark.parametrize("family", ["phi3-longrope", "qwen2-dynamic"])
def test_answers_are_weighed_as_by_single_forwards(family, layers):
    backbone = tiny_models.backbone(family, DEPTH)
    model = backbone.model if layers is None else without(backbone, layers)
    verdicts = weigh(Engine(backbone), questions(), None if layers is None else StaticSkip(only=layers))
    assert_close(verdicts, [plain(backbone, model, q) for q in questions()])


@pytest.mark.parametrize("method", [None, RandomSkip(share=0.5)])
def test_reading_again_costs_what_a_prompt_costs(method):
    engine = Engine(tiny_models.backbone("phi3-longrope", DEPTH, "eager"))
    wave = engine.prefill(requests(prompts()))
    with FlopCounterMode(display=False) as counter:
        written = wave.decode(method)
    executed = sum(g.executed + g.prompt_executed for g in written)
    assert executed == counter.get_total_flops() + wave.ledger.executed.sum()
    (again,) = engine.prefill(requests(prompts([ORIGINAL]), [1])).decode()
    first = [sum(wave.ledger.total(row).values()) for row in range(len(LENGTHS))]
    assert [g.prompt_flops - n for g, n in zip(written, first, strict=True)] == [
        again.prompt_flops * x for x in CROSSING
    ]
    assert all(len(g.layers) == LIMIT - 1 and max(g.layers) <= DEPTH for g in written)


@pytest.mark.parametrize("family", [*STEADY, *tiny_models.FAMILIES, "gemma3", "falcon-alibi"])
def test_angles_that_do_not_depend_on_the_length_are_made_as_ever(family):
    backbone = tiny_models.backbone(family, DEPTH)
    assert RowAngles.of(backbone) is None and Engine(backbone).reread_after is None


def test_dynamic_scaling_stretches_the_context():
    assert tiny_models.backbone("llama-dynamic", DEPTH).context == 4 * ORIGINAL
    for family in ("llama-longrope", "phi3-longrope", "qwen2-yarn", "gemma3-longrope", "llama"):
        assert tiny_models.backbone(family, DEPTH).context == tiny_models.CONTEXT
