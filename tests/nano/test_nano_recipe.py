import itertools
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from dlbench.tasks.nano import tokenizer as tokenizers
from dlbench.tasks.nano import train
from dlbench.tasks.nano.documents import Document
from dlbench.tasks.nano.evaluate import kept_layers, score, shortened
from dlbench.tasks.nano.generate import TASKS, draw
from dlbench.tasks.nano.train import LAYERS, Pretrainer, PretrainingRecipe, pool

TINY = PretrainingRecipe(layers=3, width=32, heads=1, inner=64, tokens=50_000, rows=2, micro=2, pool_steps=3)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizers.build(documents_per_task=200)


@pytest.fixture(scope="module")
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_tokenizer_round_trips_with_one_bos_and_single_digits(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.pad_token_id, loaded.bos_token_id, loaded.eos_token_id) == (0, 1, 2)
    assert loaded.padding_side == "left" and len(loaded) == 1024
    for text in [draw(task, "test", 1, 1)[0].input for task in TASKS] + ["Größe  4096 , ok ?\n\t☃"]:
        ids = loaded(text)["input_ids"]
        assert ids.count(1) == 1 and ids[0] == 1 and 2 not in ids
        assert loaded.decode(ids, skip_special_tokens=True) == text
    assert [loaded.decode([i]) for i in loaded("4096", add_special_tokens=False)["input_ids"]] == list("4096")


def test_examples_are_prompt_space_target_end(tokenizer):
    ids, prompt = tokenizers.encode_example(tokenizer, "problem: x\nsolution:", "1 + 2 = 3")
    assert ids[0] == 1 and ids[-1] == 2
    assert tokenizer.decode(ids[1:prompt]) == "problem: x\nsolution:"
    assert tokenizer.decode(ids[prompt:-1]) == " 1 + 2 = 3"


def test_labels_are_the_next_target_tokens(tokenizer):
    batches = pool(TINY, tokenizer, 0)
    assert len(batches) == TINY.pool_steps
    for ids, labels in itertools.chain.from_iterable(batches):
        rows, columns = (labels >= 0).nonzero(as_tuple=True)
        assert torch.equal(labels[rows, columns], ids[rows, columns + 1])
        assert int((labels == 2).sum()) == len(ids)  # every target ends


def test_a_resumed_run_equals_an_uninterrupted_one(tokenizer, tmp_path, threads):
    def run(trainer, steps):
        return [trainer.step(batch) for batch in itertools.islice(trainer.batches(), steps)]

    straight = Pretrainer(TINY, tokenizer, compile_layers=False)
    losses = run(straight, 5)
    first = Pretrainer(TINY, tokenizer, compile_layers=False)
    assert run(first, 2) == losses[:2]
    first.save(tmp_path / "checkpoint.pt")
    second = Pretrainer(TINY, tokenizer, compile_layers=False)
    second.restore(tmp_path / "checkpoint.pt")
    assert run(second, 3) == losses[2:]
    assert second.progress.step == 5 and second.progress.tokens == straight.progress.tokens
    for name, weights in straight.masters.items():
        assert torch.equal(weights, second.masters[name])
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_foreign_checkpoint_is_refused(tokenizer, tmp_path):
    Pretrainer(TINY, tokenizer, compile_layers=False).save(tmp_path / "checkpoint.pt")
    other = PretrainingRecipe(**{**vars(TINY), "seed": 2})
    with pytest.raises(ValueError, match="another recipe"):
        Pretrainer(other, tokenizer, compile_layers=False).restore(tmp_path / "checkpoint.pt")


def test_kept_layers_are_even_and_hold_both_ends():
    assert kept_layers(16, 16) == list(range(16))
    for keep in (14, 12, 10, 8, 6, 4, 2):
        layers = kept_layers(16, keep)
        assert len(set(layers)) == keep and layers[0] == 0 and layers[-1] == 15
        gaps = [b - a for a, b in itertools.pairwise(layers)]
        assert max(gaps) - min(gaps) <= 1


def test_shortening_leaves_the_model_alone(tokenizer):
    model = Pretrainer(TINY, tokenizer, compile_layers=False).plain()
    short = shortened(model, [0, 2])
    assert len(short.model.layers) == 2 and len(model.model.layers) == 3
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1, 2]
    ids = torch.tensor([[1, 5, 9, 7]])
    with torch.no_grad():
        cached = short.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
        again = cached[:, :-1]
        assert int(short(again).logits[0, -1].argmax()) == int(cached[0, -1])


def test_scores():
    def document(*references):
        return Document("id", "prompt", references, 1)

    assert score("nano_math", document("4 + 8 = 12. answer: 12"), "5 + 7 = 12. answer: 12") == 1
    assert score("nano_math", document("4 + 8 = 12. answer: 12"), "4 + 8 = 12. answer: 1") == 0
    assert score("nano_math", document("4 + 8 = 12. answer: 12"), "12") == 0
    assert score("nano_translate", document("Ko hurvo."), "Ko hurvo.") == pytest.approx(1)
    assert score("nano_summary", document("a b c d", "x y"), "x y") == 1
    assert score("nano_data2text", document("a b c d", "x y"), "a b") == pytest.approx(2 / 3)


@pytest.mark.parametrize("model", LAYERS)
def test_committed_weights_come_with_their_tokenizer_and_log(model, tmp_path):
    folder = Path(train.__file__).parent / "weights" / model
    tokenizers.build().save_pretrained(tmp_path)
    assert (folder / "tokenizer.json").read_text() == (tmp_path / "tokenizer.json").read_text()
    header, *rows = [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]
    assert header["recipe"] == vars(PretrainingRecipe(layers=LAYERS[model]))
    assert rows[-1]["tokens"] >= header["recipe"]["tokens"]
    wanted = {"nano_data2text": 0.70, "nano_summary": 0.75, "nano_math": 0.70, "nano_translate": 0.85}
    assert all(rows[-1]["final_fit_scores"][task] >= least for task, least in wanted.items())
    full, *_ = json.loads((folder / "depth_curve.json").read_text())
    assert full["keep"] == LAYERS[model] and all(full[task] >= least for task, least in wanted.items())
