"""Tokens that a tokenizer knows and the model has no embedding for: named where a text needs one, else harmless."""

import json

import pytest
import small_model
import torch
from checkpoints import copy
from transformers import AutoTokenizer

from dlbench.cli import main
from dlbench.data.document import Document
from dlbench.engine import Engine, Request
from dlbench.engine.loglikelihood import weigh
from dlbench.engine.requests import Question
from dlbench.errors import DlbenchError
from dlbench.models.loading import load
from dlbench.prompting.teacher_forcing import Batch, example
from dlbench.prompting.tokenize import encode, tokenise

ROWS = 1024


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """A model whose tokenizer was given tokens, and which was not resized."""
    folder = small_model.save(tmp_path_factory.mktemp("models") / "larger", context=64)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|tool|>", "<|call|>"])
    tokenizer.add_special_tokens({"pad_token": "<|padding|>"})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def backbone(larger):
    found = load(str(larger))
    assert found.vocabulary == ROWS and len(found.tokenizer) == ROWS + 3
    return found


def document(prompt="say a", references=("x",), **more):
    return Document("d", prompt, references, 8, (), 0, None, **more)


def needs(token, what=""):
    number = ROWS + ["tool", "call"].index(token)
    return rf"{what}.* needs token '<\|{token}\|>', number {number}, and the embedding of model 'larger' has 1024 rows"


def test_a_run_is_refused_where_a_prompt_needs_one(larger, tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    prompts = [*(f"say {i}" for i in range(8)), "call <|call|> now"]
    path.write_text("".join(json.dumps({"input": p, "references": ["x"]}) + "\n" for p in prompts))
    line = f"run --model {larger} --task file:{path} --method full --limit all --processes 1 --max-new-tokens 3"
    assert main([*line.split(), "--out", str(tmp_path / "o")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and not (tmp_path / "o").exists()
    assert "the prompt needs token '<|call|>', number 1025, and the embedding of model 'larger' has 1024 rows" in err


def test_a_prompt_is_refused_by_what_is_left_of_it(backbone):
    engine = Engine(backbone, kernels="stock")
    with pytest.raises(DlbenchError, match=needs("tool", "document d: the prompt")):
        tokenise(engine, [document("use <|tool|> here")])
    (made,) = tokenise(engine, [document("use <|tool|> here " + "and so on " * 40)])  # it loses its beginning
    assert made.truncated and max(made.request.ids) < ROWS
    assert len(engine.prefill([made.request]).decode()[0].tokens) == 8
    with pytest.raises(DlbenchError, match=needs("tool", "document r: the prompt")):
        engine.prefill([Request("r", (3, ROWS, 4), 4)])


@pytest.mark.parametrize("pair", [("use <|tool|>", " now"), ("say", " <|tool|>"), ("", "<|tool|> now")])
def test_an_answer_that_needs_one_is_refused(pair, backbone):
    with pytest.raises(DlbenchError, match=needs("tool", "document d: an answer with its context")):
        encode(backbone, document(pairs=(("say", " a"), pair)))


@pytest.mark.parametrize("answer", [((ROWS, 3), (4,)), ((3, 4), (ROWS,)), ((3,), (ROWS, 4))])
def test_what_is_weighed_is_looked_at_to_its_last_token(answer, backbone):
    with pytest.raises(DlbenchError, match=needs("tool", "document q")):
        weigh(Engine(backbone, kernels="stock"), [Question("q", (((3,), (4,)), answer))])


def test_a_begin_token_beyond_is_refused(larger, tmp_path):
    folder = copy(larger, tmp_path / "larger")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<|call|>"})
    tokenizer.save_pretrained(folder)
    found = load(str(folder))
    assert found.start == [ROWS + 1]
    with pytest.raises(DlbenchError, match=needs("call", "document d: an answer with its context")):
        encode(found, document(pairs=(("", "a"),)))


def test_a_tokenizer_that_neither_begins_nor_ends_a_text_is_told(larger, tmp_path):
    found = load(str(larger))
    found.tokenizer.bos_token = found.tokenizer.eos_token = None
    assert encode(found, document(pairs=(("say", " a"),)))
    with pytest.raises(DlbenchError, match="has no token that begins or ends a text"):
        encode(found, document(pairs=(("", "a"),)))


@pytest.mark.parametrize(("prompt", "reference"), [("use <|tool|>", "x"), ("say a", "b <|tool|>")])
def test_what_is_learnt_from_is_refused_where_it_needs_one(prompt, reference, backbone):
    with pytest.raises(DlbenchError, match=needs("tool", "document d: the prompt with a reference")):
        example(backbone, document(prompt, (reference,)), 0)


def test_an_end_that_the_model_cannot_write_is_no_end(larger, tmp_path):
    """Neither a crash where it would be learnt, nor another text where it would be written."""
    folder = copy(larger, tmp_path / "m", eos_token_id=None)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 5000, "pad_token_id": 0}))
    found = load(str(folder))
    made = example(found, document(), 0)
    assert max(made.target) < ROWS
    assert torch.isfinite(found.model(input_ids=Batch.of([made]).ids).logits).all()
    prompts = [(3, 4, 5), (6, 7, 8, 9, 10, 11)]
    written = Engine(found, kernels="stock").prefill([Request(str(p), p, 12) for p in prompts]).decode()
    for prompt, one in zip(prompts, written, strict=True):
        ids = torch.tensor([prompt])
        theirs = found.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        assert one.tokens == theirs[0, len(prompt) :].tolist()


def test_padding_beyond_pads_nothing(backbone):
    """Rows of unequal length are padded with a token that is there, whatever the tokenizer's own is."""
    assert backbone.tokenizer.pad_token_id >= ROWS
    requests = [Request(str(n), tuple(range(3, 3 + n)), 6) for n in (2, 9, 5)]
    engine = Engine(backbone, kernels="stock")
    together = engine.prefill(requests).decode()
    assert [g.tokens for g in together] == [engine.prefill([r]).decode()[0].tokens for r in requests]
