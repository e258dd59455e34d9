"""`dlbench.evaluate`: a method on texts of one's own."""

import pytest
import small_model
import torch
from bumpy import Bumpy
from transformers import AutoModelForCausalLM, AutoTokenizer

import dlbench
from dlbench.errors import DlbenchError, MethodError
from dlbench.method import Action, Method

PROMPTS = ["The cat sat on", "a longer text, of many words and more", "x"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="module")
def loaded(folder):
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def test_full_depth_writes_what_generate_writes(loaded):
    model, tokenizer = loaded
    for text, one in zip(
        PROMPTS, dlbench.evaluate(model, "full", PROMPTS, tokenizer=tokenizer, max_new_tokens=9), strict=True
    ):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        new = model.generate(ids, max_new_tokens=9, do_sample=False)[0, ids.shape[1] :]
        assert list(one.tokens) == new.tolist()
        assert one.prompt == text
        assert one.layer_share == 1.0
        assert one.flop_share == pytest.approx(1.0)


def test_a_name_and_a_folder_stand_for_a_model(folder, loaded):
    by_folder = dlbench.evaluate(folder, "full", PROMPTS, max_new_tokens=5)
    assert by_folder == dlbench.evaluate(loaded[0], "full", PROMPTS, tokenizer=loaded[1], max_new_tokens=5)


def test_a_budget_in_closed_form(loaded):
    model, tokenizer = loaded
    (one,) = dlbench.evaluate(model, "static_skip", ["x"], tokenizer=tokenizer, budget=0.5, max_new_tokens=5)
    assert one.layer_share == 0.5
    assert one.flop_share < 1
    assert {route.count("3") for route, _ in one.routes} == {2}


def test_stop_texts_end_a_continuation(loaded):
    model, tokenizer = loaded
    (whole,) = dlbench.evaluate(model, "full", ["x"], tokenizer=tokenizer, max_new_tokens=12)
    stop = whole.text[3:5]
    (short,) = dlbench.evaluate(model, "full", ["x"], tokenizer=tokenizer, max_new_tokens=12, stop=[stop])
    assert short.text == whole.text.split(stop)[0]
    assert len(short.tokens) < len(whole.tokens)


def test_prompts_may_be_routed(loaded):
    model, tokenizer = loaded
    made = [
        dlbench.evaluate(model, "static_skip", PROMPTS, tokenizer=tokenizer, budget=0.5, prompt=prompt)
        for prompt in ("full", "routed")
    ]
    assert [one.tokens for one in made[0]] != [one.tokens for one in made[1]]


def test_an_instance_keeps_its_parameters(loaded):
    model, tokenizer = loaded
    shares = [
        dlbench.evaluate(model, Bumpy(threshold), ["x"], tokenizer=tokenizer, max_new_tokens=5)[0].layer_share
        for threshold in (-1e9, 1e9)
    ]
    assert shares == [1.0, 0.5]


def test_no_prompts_give_nothing(loaded):
    assert dlbench.evaluate(loaded[0], "full", [], tokenizer=loaded[1]) == []


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("calm", {"budget": 0.5}, r"Calm is tuned to a budget on documents.*`configured\(\)` of its row"),
        ("hidden_router", {}, "HiddenRouter is fitted on documents"),
        ("oracle", {}, "Oracle is an oracle, which chooses by references"),
        ("statc_skip", {}, "static_skip"),
        ("static_skip", {"kv": "keep"}, "keep"),
        ("static_skip", {"kv": "recompute"}, "does not support kv = recompute"),
        (Bumpy, {"prompt": "routed"}, "decides per token"),
    ],
)
def test_what_cannot_be_done_is_said(loaded, method, more, message):
    with pytest.raises(DlbenchError, match=message):
        dlbench.evaluate(loaded[0], method, ["x"], tokenizer=loaded[1], **more)


def test_one_text_is_not_a_list(loaded):
    with pytest.raises(DlbenchError, match="give a list of texts"):
        dlbench.evaluate(loaded[0], "full", "x", tokenizer=loaded[1])


def test_a_failing_method_is_named_with_its_line(loaded):
    class Broken(Method):
        """Fails."""

        def route(self, view):
            return Action.RUN if view.layer else 1 // 0

    with pytest.raises(MethodError, match=r"Broken failed.*ZeroDivisionError.*test_texts\.py, line \d+"):
        dlbench.evaluate(loaded[0], Broken(), ["x"], tokenizer=loaded[1])


def test_a_loaded_model_is_left_as_it_was(loaded):
    model, tokenizer = loaded
    model.train()
    model.lm_head.requires_grad_(True)
    before = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()], repr(model)
    weights = [p.clone() for p in model.parameters()]
    dlbench.evaluate(model, Bumpy(), PROMPTS, tokenizer=tokenizer, max_new_tokens=4)
    assert ([m.training for m in model.modules()], [p.requires_grad for p in model.parameters()], repr(model)) == before
    assert all(map(torch.equal, weights, model.parameters()))
    model.eval()
