"""Prompts as token ids: begun once, cut at the right end, and what is cut by a task's own limit told from the rest."""

import pytest
import tiny_models
import toy_task

from dlbench.data.document import Document
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.models.backbone import wrap
from dlbench.prompting.batching import waves
from dlbench.prompting.tokenize import encode, tokenise

TEXT = "".join(chr(33 + i % 50) for i in range(200))


class Beginning(toy_task.Characters):
    """Begins every text with `\\`, as tokenizers do that have a begin-of-text token."""

    bos_token_id, bos_token = 60, "\\"

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [*([60] if add_special_tokens else []), *super().__call__(text)["input_ids"]]}


class Plain(toy_task.Characters):
    eos_token_id = 5

    def __call__(self, text, add_special_tokens=True):
        return super().__call__(text)


def engine(tokenizer=None):
    return Engine(wrap(tiny_models.build("llama", depth=4), tokenizer or Plain(), name="tiny"))


def document(prompt, limit=8, **more):
    return Document("d", prompt, ("x",), limit, (), 0, None, **more)


def test_a_text_is_begun_once():
    for prompt in ("AB", "\\AB"):  # the second as a chat template gives it
        (made,) = tokenise(engine(Beginning()), [document(prompt)])
        assert made.request.ids == (60, 33, 34) and made.with_bos and not made.truncated
    (made,) = tokenise(engine(), [document("AB")])
    assert made.request.ids == (33, 34) and not made.with_bos
    with pytest.raises(DlbenchError, match="begins with two begin-of-text tokens"):
        tokenise(engine(Beginning()), [document("\\\\AB")])


@pytest.mark.parametrize("tokenizer", [Plain(), Beginning()])
def test_a_body_loses_its_end_and_the_rest_stays(tokenizer):
    prompt = "READ: " + TEXT + " NOW:"
    (made,) = tokenise(engine(tokenizer), [document(prompt, body=(6, 6 + len(TEXT)))])
    written = tokenizer.decode(made.request.ids[made.with_bos :])
    assert made.truncated and made.overflowed and len(made.request.ids) == tiny_models.CONTEXT - 8
    kept = tiny_models.CONTEXT - 8 - made.with_bos - len("READ:  NOW:")
    assert written == "READ: " + TEXT[:kept] + " NOW:"


def test_what_surrounds_the_body_is_cut_only_where_it_does_not_fit_alone():
    (made,) = tokenise(engine(), [document(TEXT + "body", body=(200, 204))])
    assert made.truncated and made.request.ids == tuple(Plain()(TEXT[-88:])["input_ids"])


@pytest.mark.parametrize(
    ("length", "most", "limit", "kept", "truncated", "overflowed"),
    [
        (40, 50, 8, 40, False, False),
        (60, 50, 8, 50, True, False),  # by the task's own limit
        (90, None, 8, 88, True, True),
        (90, 50, 8, 50, True, False),
        (90, 89, 8, 88, True, True),  # the limit does not help
        (60, 50, 60, 36, True, True),
    ],
)
def test_the_tasks_own_limit_is_told_from_the_context(length, most, limit, kept, truncated, overflowed):
    (made,) = tokenise(engine(), [document(TEXT[:length], limit, prompt_tokens=most)])
    assert (len(made.request.ids), made.truncated, made.overflowed) == (kept, truncated, overflowed)


def test_no_room_for_a_prompt_is_told():
    with pytest.raises(DlbenchError, match="leaves no room for a prompt"):
        tokenise(engine(), [document("AB", 96)])


def question(*pairs):
    return document("", 1, pairs=pairs)


def test_answers_are_parted_from_their_context_as_lm_eval_does():
    backbone = engine(Beginning()).backbone
    encoded = encode(backbone, question(("AB ", "C"), ("AB", " CD"), ("", "E")))
    assert encoded.question.answers == (((60, 33, 34), (0, 35)), ((60, 33, 34), (0, 35, 36)), ((60,), (37,)))
    assert not encoded.truncated and encoded.longest == (60, 33, 34, 0, 35)
    assert encode(engine().backbone, question(("", "E"))).question.answers == (((5,), (37,)),)


def test_a_context_that_is_too_long_loses_its_beginning():
    encoded = encode(engine(Beginning()).backbone, question((TEXT, "ABC")))
    ((context, answer),) = encoded.question.answers
    assert encoded.truncated and len(context) + len(answer) - 1 == tiny_models.CONTEXT
    assert context[0] == 60 and context[1:] == tuple(Plain()(TEXT[-93:])["input_ids"])
    made = tokenise(engine(Beginning()), [question((TEXT, "ABC"))])
    assert made[0].truncated and made[0].overflowed and made[0].with_bos and len(waves(made, 4)) == 1


def test_answers_that_cannot_be_weighed_are_told():
    backbone = engine().backbone
    with pytest.raises(DlbenchError, match="document d: the answer '' is empty"):
        encode(backbone, question(("AB", "")))
    with pytest.raises(DlbenchError, match="does not fit a context of 96 tokens"):
        encode(backbone, question(("AB", TEXT)))
