"""Weighed answers: those of the unpadded stock model, of the model with layers deleted, and the same in every batch."""

import pytest
import tiny_models
import torch
from test_static_sets import without
from torch.utils.flop_counter import FlopCounterMode

from dlbench.engine import Engine
from dlbench.engine.loglikelihood import weigh
from dlbench.engine.requests import Question
from dlbench.errors import DlbenchError
from dlbench.methods.calm import Calm
from dlbench.methods.random_skip import RandomSkip
from dlbench.methods.static_skip import StaticSkip

TOLERANCE = 1e-4
EACH = [(family, "eager") for family in tiny_models.EVERY] + [("llama", "sdpa"), ("opt", "sdpa"), ("gpt2", "sdpa")]


def questions(count=5):
    """Contexts of different lengths with answers of one to four tokens, two of one token."""
    prompts = [tuple(p) for p in tiny_models.prompts(count, seed=3)]
    answers = [(7,), (9,), (5, 11, 3, 8), (2, 4)]
    return [Question(f"q{i}", tuple((p, a) for a in answers)) for i, p in enumerate(prompts)]


def plain(model, question):
    """Log-likelihood and greedy match of each answer by the unmodified model, one unpadded text at a time."""
    found = []
    for context, continuation in question.answers:
        ids = torch.tensor([[*context, *continuation]])
        with torch.inference_mode():
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0].float()
        predicted = torch.log_softmax(logits[-len(continuation) :], -1)
        wanted = ids[0, -len(continuation) :]
        found.append((float(predicted.gather(-1, wanted[:, None]).sum()), bool((predicted.argmax(-1) == wanted).all())))
    return found


def shortened(backbone, layers):
    """The model without the other layers, each kept one with its own attention window."""
    return without(backbone, layers)


def assert_close(verdicts, expected):
    for verdict, answers in zip(verdicts, expected, strict=True):
        for (a, greedy), (b, wanted) in zip(verdict.answers, answers, strict=True):
            assert a == pytest.approx(b, abs=TOLERANCE) and greedy == wanted


@pytest.mark.parametrize(("family", "attention"), EACH)
def test_full_depth_equals_the_unpadded_stock_model(family, attention):
    backbone = tiny_models.backbone(family, attention=attention)
    assert_close(weigh(Engine(backbone), questions()), [plain(backbone.model, q) for q in questions()])


SPECIAL = ("qwen2-mixed", "gemma2", "gpt_neo", "falcon-alibi", "bloom")
SETS = [(family, "eager", (0, 2, 4)) for family in (*tiny_models.FAMILIES, *SPECIAL)] + [
    (family, "sdpa", (1, 3)) for family in ("llama", "opt", "gpt2")
]


@pytest.mark.parametrize(("family", "attention", "layers"), SETS)
def test_a_static_set_equals_the_model_without_the_other_layers(family, attention, layers):
    backbone = tiny_models.backbone(family, attention=attention)
    verdicts = weigh(Engine(backbone), questions(), StaticSkip(only=layers))
    assert_close(verdicts, [plain(shortened(backbone, layers), q) for q in questions()])
    assert all(set(v.layers) == {len(layers)} for v in verdicts)


def test_greedy_is_what_the_model_would_write():
    backbone = tiny_models.backbone("llama")
    prompt = tuple(tiny_models.prompts(1)[0])
    written = backbone.model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, len(prompt) :]
    other = (*written[:2].tolist(), (int(written[2]) + 1) % tiny_models.VOCABULARY)
    (verdict,) = weigh(Engine(backbone), [Question("q", ((prompt, tuple(written.tolist())), (prompt, other)))])
    assert [greedy for _, greedy in verdict.answers] == [True, False]


@pytest.mark.parametrize("method", [None, StaticSkip(only=(0, 3)), RandomSkip(share=0.5, per="sequence")])
def test_what_is_found_and_credited_does_not_depend_on_the_batch(method):
    engine = Engine(tiny_models.backbone("llama"))
    alone = [weigh(engine, [q], method, seed=4)[0] for q in questions(9)]
    together = weigh(engine, questions(9), method, seed=4)
    assert_close(together, [v.answers for v in alone])
    for a, b in zip(alone, together, strict=True):
        assert (a.tokens, a.layers, a.routes, a.flops) == (b.tokens, b.layers, b.routes, b.flops)


def test_all_answers_of_a_document_are_weighed_by_the_same_layers():
    engine = Engine(tiny_models.backbone("llama"))
    verdicts = weigh(engine, questions(8), RandomSkip(share=0.5, per="sequence"), seed=1)
    assert all(len({route for route, _ in v.routes}) == 1 for v in verdicts)
    assert len({v.routes[0][0] for v in verdicts}) > 1


def test_answers_of_one_token_share_a_row():
    engine = Engine(tiny_models.backbone("llama"))
    (verdict,) = weigh(engine, questions(1))
    context = len(questions(1)[0].answers[0][0])
    assert len(verdict.layers) == 3
    assert verdict.tokens == context + (context + 3) + (context + 1)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("method", [None, StaticSkip(only=(1, 3)), RandomSkip(share=0.5, per="sequence")])
def test_executed_equals_torch(family, method):
    engine = Engine(tiny_models.backbone(family, attention="eager"))
    with FlopCounterMode(display=False) as counter:
        verdicts = weigh(engine, questions(), method)
    assert sum(v.executed for v in verdicts) == counter.get_total_flops() > 0


def test_padding_is_not_credited():
    """Of rows of one length all that is executed is credited; a longer neighbour changes only what is executed."""
    engine = Engine(tiny_models.backbone("llama", attention="eager"))
    short, long = Question("s", (((3, 4, 5), (6,)),)), Question("l", (((3,) * 20, (6,)),))
    (alone,) = weigh(engine, [short])
    assert sum(alone.flops.values()) == alone.executed
    beside, _ = weigh(engine, [short, long])
    assert beside.flops == alone.flops and beside.executed > alone.executed


def test_a_context_of_one_token_is_weighed():
    backbone = tiny_models.backbone("llama")
    question = Question("q", (((3,), (4,)), ((3,), (5, 6))))
    assert_close(weigh(Engine(backbone), [question]), [plain(backbone.model, question)])


def test_what_cannot_be_weighed_is_refused():
    engine = Engine(tiny_models.backbone("llama"))
    with pytest.raises(DlbenchError, match="decides per token"):
        weigh(engine, questions(1), Calm())
    with pytest.raises(DlbenchError, match="document q: 97 tokens do not fit a context of 96"):
        weigh(engine, [Question("q", (((1,) * 97, (2,)),))])
