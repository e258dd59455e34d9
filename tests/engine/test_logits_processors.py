"""What a generation_config asks for is done: every row writes what `generate` writes for its prompt alone."""

import copy
from collections import Counter
from functools import cache
from itertools import pairwise

import pytest
import tiny_models
import torch
from tiny_models import without
from transformers import GenerationConfig, SynthIDTextWatermarkingConfig, WatermarkingConfig

from dlbench.engine import Engine, Request, decoding
from dlbench.errors import DlbenchError
from dlbench.methods.calm import Calm
from dlbench.methods.calm_oracle import CalmOracle
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.self_speculation import SelfSpeculation
from dlbench.methods.static_skip import StaticSkip
from dlbench.models.backbone import wrap

pytestmark = pytest.mark.filterwarnings("ignore:Unfeasible length")  # a shortest text that is longer than the limit
DEPTH = 3
PROMPTS = [(5, 6, 7, 8), (9,), (4, 9, 4, 9, 4, 9, 4), (11, 30), (30, 30, 4, 3, 45, 4, 3), (8, 8, 8)]
LIMITS = [16, 7, 16, 1, 9, 16]
SINGLE = {
    "repetition": {"repetition_penalty": 1.3},
    "repetition-wanted": {"repetition_penalty": 0.5},
    "prompt-repeated": {"encoder_repetition_penalty": 2.5},
    "no-token-twice": {"no_repeat_ngram_size": 1},
    "no-pair-twice": {"no_repeat_ngram_size": 2},
    "no-triple-twice": {"no_repeat_ngram_size": 3},
    "no-pair-of-the-prompt": {"encoder_no_repeat_ngram_size": 2},
    "no-token-of-the-prompt": {"encoder_no_repeat_ngram_size": 1},
    "shortest": {"min_length": 9},
    "shortest-new": {"min_new_tokens": 6},
    "first-forced": {"forced_bos_token_id": 13},
    "last-forced": {"forced_eos_token_id": 14},
    "last-forced-among": {"forced_eos_token_id": [14, 15]},
    "made-finite": {"remove_invalid_values": True, "suppress_tokens": [3]},
    "shorter": {"exponential_decay_length_penalty": [2, 1.5]},
    "normalised": {"renormalize_logits": True},
    "watermark": {"watermarking_config": WatermarkingConfig(bias=4.0)},
    "watermark-of-itself": {"watermarking_config": WatermarkingConfig(bias=4.0, seeding_scheme="selfhash")},
    "watermark-of-three": {"watermarking_config": WatermarkingConfig(bias=4.0, context_width=3)},
}
SEVERAL = {
    "qwen": {"repetition_penalty": 1.05, "do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "many": {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 4,
        "forced_eos_token_id": 14,
        "renormalize_logits": True,
    },
    "others": {"exponential_decay_length_penalty": [1, 1.2], "min_length": 6, "no_repeat_ngram_size": 3},
}


def plain(family, dtype=torch.float32):
    """A model that asks for nothing, and repeats itself: what it writes follows from the last tokens."""
    model = tiny_models.build(family, depth=DEPTH, dtype=dtype)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if any(part in name for part in ("o_proj", "out_proj", "attn.c_proj")):
                p.mul_(0.1)
    return model


@cache
def written(family="llama"):
    """What that one writes: the texts, and its tokens by how often it writes them."""
    texts = alone(plain(family))
    return texts, [token for token, _ in Counter(token for tokens in texts for token in tokens).most_common()]


def build(family="llama", wished=None, dtype=torch.float32):
    """A model that asks for something, and ends its texts with two tokens that it writes now and then."""
    model = plain(family, dtype)
    _, tokens = written(family)
    model.generation_config = GenerationConfig(eos_token_id=tokens[-4:-2], **copy.deepcopy(wished or {}))
    return model


def alone(model, prompts=PROMPTS, limits=LIMITS):
    """What `generate` writes, a prompt at a time."""
    found = []
    for prompt, limit in zip(prompts, limits, strict=True):
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit)
        found.append(out[0, len(prompt) :].tolist())
    return found


def requests(prompts=PROMPTS, limits=LIMITS):
    return [Request(str(i), p, n) for i, (p, n) in enumerate(zip(prompts, limits, strict=True))]


@cache
def unchanged():
    """What a model that asks for nothing writes, up to its ends."""
    return alone(build())


def check(model, slots=(None, 2)):
    expected = alone(model)
    engine = Engine(wrap(model))
    for count in slots:
        wave = engine.prefill(requests(), slots=count)
        for _ in range(2):  # from the same prompts, which stay as they were
            assert [g.tokens for g in wave.decode()] == expected
    return expected


@pytest.mark.parametrize("name", SINGLE)
def test_each_wish_is_done(name):
    model = build(wished=SINGLE[name])
    expected = check(model)
    assert (expected == unchanged()) == (name == "normalised")  # the one that changes no order


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2", "gemma2"])
@pytest.mark.parametrize("name", SEVERAL)
def test_wishes_together(family, name):
    check(build(family, SEVERAL[name]), slots=(3,))


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_words_and_tokens_that_are_wanted_or_not(family):
    model = build(family)
    free, (first, second, third, fourth, *_) = written(family)
    pair = next([a, b] for tokens in free for a, b in pairwise(tokens))
    for wished in (
        {"bad_words_ids": [[third], pair, [first, second, third]]},
        {"sequence_bias": [[[fourth], -4.0], [pair, -9.0], [[5, 6, 7, 8, fourth], 30.0]]},
        {"suppress_tokens": [third, fourth]},
        {"begin_suppress_tokens": [tokens[0] for tokens in free]},
        {"bad_words_ids": [pair], "begin_suppress_tokens": [third], "suppress_tokens": [fourth]},
    ):
        model.generation_config = GenerationConfig(**wished)
        assert check(model, slots=(3,)) != free


@pytest.mark.parametrize("family", ["llama", "opt", "gpt2"])
def test_under_a_static_skip_as_in_the_model_without_these_layers(family):
    method = StaticSkip(only=(0, 2))
    model = build(family, SEVERAL["many"])
    backbone = wrap(model)
    wave = Engine(backbone).prefill(requests(), method, slots=3)
    fewer = without(backbone, (0, 2))
    assert [g.tokens for g in wave.decode(method)] == alone(fewer) != alone(model)


@pytest.mark.parametrize(
    "draft",
    [
        SelfSpeculation(share=0.34),
        SelfSpeculation(share=0.67, length=6, stop=0.2),
        SelfSpeculation(only=(0, 2), length=3),
        SelfSpeculation(share=0.67, drafts="skip", length=9),
    ],
)
@pytest.mark.parametrize("name", ["qwen", "many", "others"])
def test_speculation_writes_the_same(draft, name):
    model = build(wished=SEVERAL[name])
    expected = alone(model)
    for slots in (None, 2):
        written = Engine(wrap(model)).prefill(requests(), slots=slots).decode(draft)
        assert [g.tokens for g in written] == expected


def test_drafts_know_what_may_not_be_written():
    """Layers that add nothing: a draft is right as long as it heeds what full depth heeds."""
    model = build(wished={"no_repeat_ngram_size": 1, "repetition_penalty": 1.4})
    with torch.no_grad():
        for layer in model.model.layers[1:]:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.zero_()
                linear.bias.zero_()
    model.generation_config.eos_token_id = None
    written = Engine(wrap(model)).prefill(requests()).decode(SelfSpeculation(share=0.34, length=4))
    assert [g.tokens for g in written] == alone(model)
    assert all(g.speculation[0] == g.speculation[1] for g in written) and sum(g.speculation[0] for g in written) > 40


def test_exits_go_through_the_processors_too():
    """A head after every layer that says what the last one says: whoever leaves writes what full depth writes."""
    model = build(wished=SEVERAL["many"])
    with torch.no_grad():
        for layer in model.model.layers[1:]:
            for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
                linear.weight.zero_()
                linear.bias.zero_()
    wave = Engine(wrap(model)).prefill(requests(), slots=3)
    written = wave.decode(Calm(measure="top1", check=(1, 2), threshold=0.0))
    assert [g.tokens for g in written] == alone(model)
    assert all(share == 1 for g in written for share in g.layers)


def test_what_is_foreseen_is_what_would_be_written():
    """With true keys and values the oracle writes full depth's text; it leaves where the chosen tokens agree."""
    model = build(wished={"no_repeat_ngram_size": 1, "min_new_tokens": 5}, dtype=torch.float64)
    expected = alone(model)
    wave = Engine(wrap(model)).prefill(requests(), slots=3)
    written = wave.decode(CalmOracle(), kv="recompute")
    assert [g.tokens for g in written] == expected
    seen = []

    class Noting(CalmOracle):
        def route(self, view):
            if view.layer == 0:
                seen.extend(zip(view.row.tolist(), view.step.tolist(), view.foreseen(view.depth).tolist(), strict=True))
            return super().route(view)

    wave.decode(Noting(), kv="recompute")
    assert seen and all(expected[row][step + 1] == token for row, step, token in seen)


def test_any_method_in_any_batch():
    engine = Engine(wrap(build(wished=SEVERAL["many"], dtype=torch.float64)))
    for method in (RandomSkip(share=0.6), RandomSkip(share=0.6, per="sequence"), Calm(threshold=0.4)):
        together = [g.tokens for g in engine.prefill(requests()).decode(method)]
        single = [engine.prefill([r]).decode(method)[0].tokens for r in requests()]
        assert together == single == [g.tokens for g in engine.prefill(requests(), slots=2).decode(method)]


def test_samples_are_drawn_from_processed_scores():
    model = build(wished={"no_repeat_ngram_size": 1})
    engine = Engine(wrap(model))
    for stream in (1, 2):
        written = [g.tokens for g in engine.prefill(requests(), slots=2).decode(sample=stream)]
        assert written == [engine.prefill([r]).decode(sample=stream)[0].tokens for r in requests()]
        for prompt, tokens in zip(PROMPTS, written, strict=True):
            assert len({*prompt, *tokens}) == len(set(prompt)) + len(tokens)
    assert written != alone(model)


def test_a_margin_is_that_of_processed_scores(monkeypatch):
    """A forced token has no rival; without one the near ties are those of the model's own scores."""
    monkeypatch.setattr(decoding, "near_tie_below", lambda precision: 1e9)
    model = build(wished={"forced_eos_token_id": 14})
    model.generation_config.eos_token_id = None
    written = Engine(wrap(model)).prefill(requests()).decode()
    assert [[step for step, _ in g.near_ties] for g in written] == [list(range(n - 1)) for n in LIMITS]


def test_a_model_that_asks_for_nothing_takes_the_plain_path(monkeypatch):
    seen = []
    argmax = decoding.argmax_with_margin
    monkeypatch.setattr(decoding, "argmax_with_margin", lambda scores: seen.append(scores.data_ptr()) or argmax(scores))
    model = build()
    engine = Engine(wrap(model))
    assert engine.wishes.processed == {} and engine.runtime.processors(requests()) is None
    wave = engine.prefill(requests())
    made = []
    forward = wave.forward
    wave.forward = lambda *args, **more: made.append(forward(*args, **more)) or made[-1]
    wave.decode()
    assert seen == [wave.chunks[0].first.data_ptr(), *(logits.data_ptr() for logits in made)]  # no copy on the way


@pytest.mark.parametrize(
    ("wished", "said"),
    [
        ({"num_beams": 4}, r"beam search \(num_beams=4\)"),
        ({"num_beams": 4, "do_sample": True}, r"beam search \(num_beams=4\)"),
        ({"penalty_alpha": 0.6, "top_k": 4}, r"contrastive search \(penalty_alpha=0.6\)"),
        ({"penalty_alpha": 0.6}, "contrastive search"),
        ({"dola_layers": "high"}, "contrast between layers"),
        ({"guidance_scale": 1.5}, "guidance by a second forward"),
        ({"token_healing": True}, "healed prompts"),
        ({"constraints": [1]}, "constrained beam search"),
        ({"force_words_ids": [[4, 5]]}, "constrained beam search"),
        (
            {"watermarking_config": SynthIDTextWatermarkingConfig(ngram_len=5, keys=[4, 5])},
            "a watermark with a memory",
        ),
    ],
)
def test_another_way_of_decoding_is_refused(wished, said):
    model = tiny_models.build("llama", depth=DEPTH)
    model.generation_config = GenerationConfig(**wished)
    wave = Engine(wrap(model, name="mine")).prefill(requests())
    with pytest.raises(DlbenchError, match=rf"model 'mine'.* asks for {said}.*take that out of") as caught:
        wave.decode()
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("several", [False, True])
def test_a_text_that_may_write_nothing_is_told_by_what_forbids_it(several):
    """transformers then takes the first token of the vocabulary, which nobody chose."""
    model = tiny_models.build("llama", depth=DEPTH)
    model.generation_config = GenerationConfig(suppress_tokens=list(range(model.config.vocab_size)))
    wave = Engine(wrap(model, name="mine")).prefill(requests()[: 3 if several else 1])
    with pytest.raises(DlbenchError, match=r"document .*: what generation_config\.json asks for leaves it no token"):
        wave.decode()


@pytest.mark.parametrize(
    ("wished", "said"),
    [
        ({"repetition_penalty": -2.0}, "strictly positive float"),
        ({"sequence_bias": [[[900], 2.0]]}, "vocabulary size is 61"),
        ({"bad_words_ids": [[-3]]}, "positive integers"),
        ({"exponential_decay_length_penalty": [2, 1.5], "eos_token_id": None}, "exponential"),
    ],
)
def test_what_transformers_refuses_is_one_line(wished, said):
    model = tiny_models.build("llama", depth=DEPTH)
    model.generation_config = GenerationConfig(**wished)
    with pytest.raises(DlbenchError, match=rf"model 'mine': transformers refuses .*{said}.*mend its") as caught:
        Engine(wrap(model, name="mine")).prefill(requests()).decode()
    assert "\n" not in str(caught.value)
