"""Where texts end, and what a generation_config makes of them: lm-eval's own runner, a document at a time, and ours.

lm-eval lets a batch go on until every row has met the same stop, so what a row writes after its own depends on its
neighbours there; one document at a time it does not.
"""

import json
import shutil

import pytest
from test_against_lm_eval import quiet, theirs, write  # noqa: F401 (a fixture)

from dlbench.cli import main
from dlbench.data import loader
from dlbench.data.document import cut
from dlbench.models.loading import embedded_folder
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample

LIMIT, NEW = 4, 24
WRITES = """
task: own_ends
custom_dataset: !function dlbench.tasks.jsonl.read
dataset_kwargs: {folder: nano/data/nano_translate}
training_split: fit
test_split: test
doc_to_text: input
doc_to_target: references
process_results: !function dlbench.tasks.metrics.score_translate
generation_kwargs: {until: UNTIL, max_gen_toks: NEW, do_sample: false}
metric_list:
  - {metric: chrf, aggregation: mean, higher_is_better: true}
  - {metric: exact, aggregation: mean, higher_is_better: true}
  - {metric: corpus_chrf, aggregation: !function dlbench.tasks.metrics.corpus_chrf, higher_is_better: true}
"""
CASES = {
    # the model ends its texts with `</s>`, token 2
    "the tokenizer names another end": ({"eos_token_id": 3}, {}, []),
    "several are named, and not the tokenizer's": ({"eos_token_id": [3, 4]}, {}, ["\n\n"]),
    "none is named": ({"eos_token_id": None}, {}, []),
    "the tokenizer ends with another": ({"eos_token_id": 2}, {"eos_token": "<pad>"}, []),
    "a stop is a special token": ({"eos_token_id": 3}, {"eos_token": "<pad>"}, ["</s>"]),
    "a stop ends in a special token": ({"eos_token_id": 3}, {"eos_token": "<pad>"}, [".</s>"]),
    "a stop begins with a special token": ({"eos_token_id": 3}, {"eos_token": "<pad>"}, ["</s> "]),
    "one token completes two stops": ({"eos_token_id": 2}, {}, [" k", "n "]),
    "a penalty": ({"eos_token_id": 2, "repetition_penalty": 5.0}, {}, ["\n"]),
    "as Qwen's": (
        {
            "eos_token_id": [2, 0], "repetition_penalty": 1.05, "do_sample": True, "temperature": 0.7, "top_k": 20,
            "top_p": 0.8,
        },
        {},
        [],
    ),
    "many wishes": (
        {"eos_token_id": 3, "no_repeat_ngram_size": 2, "min_new_tokens": 5, "suppress_tokens": [20, 21]}, {}, ["zu"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_texts_and_scores_are_the_same(tmp_path, case):
    from lm_eval.models.huggingface import HFLM

    generation, tokenizer, until = CASES[case]
    folder = tmp_path / "model"
    shutil.copytree(embedded_folder("nano"), folder)
    for name, changes in (("generation_config.json", generation), ("tokenizer_config.json", tokenizer)):
        said = json.loads((folder / name).read_text())
        if name.startswith("generation"):
            said.pop("_from_model_config")
        (folder / name).write_text(json.dumps({**said, **changes}))
    path = write(tmp_path, "own_ends", WRITES.replace("UNTIL", json.dumps(until)).replace("NEW", str(NEW)))
    results, logged = theirs(path, HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1), LIMIT)
    out = tmp_path / "out"
    line = (
        f"run --model {folder} --task {path} --method full --no-timing --batch-size 3 --limit first:{LIMIT} --out {out}"
    )
    assert main(line.split()) == 0
    (record,) = read_lines(out / "records.jsonl", Record)
    samples = {s.id: s for s in read_lines(out / "samples" / f"{record.key}.jsonl", Sample)}
    by_place = {s["doc_id"]: s for s in logged}
    for document in loader.load_task(str(path)).documents("test", LIMIT):
        sample, seen = samples[document.id], by_place[document.index]
        assert cut(sample.output, document.stop) == seen["resps"][0][0]
        assert sample.score == seen["chrf"]
    assert record.quality and record.quality.mean == results["chrf,none"] > 0
    paid = [s.tokens.generated for s in samples.values()]
    assert min(paid) < NEW or case in ("a penalty", "many wishes"), paid
