"""lm-eval's own runner with its `hf` model, and `dlbench run --method full`: same prompts, outputs and metrics.

The model is nano, so that outputs are texts and scores lie between 0 and 1; the tasks are local YAML with examples in
the prompt.
"""

import logging

import pytest
from lm_eval_tasks import CONTINUES, WEIGHS, WRITES, write, write_rows

from dlbench.cli import main
from dlbench.data import loader
from dlbench.data.document import cut
from dlbench.engine import Engine
from dlbench.engine.loglikelihood import weigh
from dlbench.models.loading import embedded_folder, load
from dlbench.prompting.tokenize import encode
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample

LIMIT = 12


@pytest.fixture(scope="module", autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def hf():
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(embedded_folder("nano")), device="cpu", dtype="float32", batch_size=5)


@pytest.fixture
def folder(tmp_path):
    return write_rows(tmp_path, LIMIT)


def theirs(path, hf, limit):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)  # the default one reads fourteen thousand files
    (task,) = manager.load([str(path)])["tasks"].values()
    found = simple_evaluate(hf, tasks=[task], limit=limit, log_samples=True, bootstrap_iters=0, task_manager=manager)
    (name,) = found["results"]
    return found["results"][name], found["samples"][name]


def ours(path, out, limit, *more):
    line = f"run --model {embedded_folder('nano')} --task {path} --method full --no-timing --batch-size 7"
    assert main([*line.split(), "--limit", f"first:{limit}", "--out", str(out), *more]) == 0
    (record,) = read_lines(out / "records.jsonl", Record)
    samples = {s.id: s for s in read_lines(out / "samples" / f"{record.key}.jsonl", Sample)}
    return record, samples


def test_what_is_written_and_its_metric_are_the_same_to_the_last_digit(tmp_path, hf):
    path = write(tmp_path, "own_writes", WRITES)
    results, logged = theirs(path, hf, LIMIT)
    record, samples = ours(path, tmp_path / "out", LIMIT)
    documents = loader.load_task(str(path)).documents("test", LIMIT)
    by_place = {s["doc_id"]: s for s in logged if s["filter"] == "stripped"}
    assert record.task.n == len(by_place) == LIMIT
    for document in documents:
        seen = by_place[document.index]
        assert document.prompt == seen["arguments"][0][0]
        assert cut(samples[document.id].output, document.stop) == seen["resps"][0][0]
        assert samples[document.id].score == seen["chrf"]
    assert record.quality and 0 < record.quality.mean < 1
    assert record.task.metric == "chrf@stripped" and record.quality.mean == results["chrf,stripped"]
    assert record.quality.extra["exact@stripped"] == results["exact,stripped"]
    assert record.quality.extra["chrf@short"] == results["chrf,short"] != results["chrf,stripped"]
    assert record.quality.corpus == results["corpus_chrf,stripped"]


def test_what_is_weighed_and_its_metric_are_the_same(tmp_path, folder, hf):
    path = write(folder, "own_weighs", WEIGHS)
    results, logged = theirs(path, hf, 2 * LIMIT)
    record, samples = ours(path, tmp_path / "out", 2 * LIMIT, "--prompt", "routed")
    assert record.quality and record.quality.mean == results["acc,none"] and 0 < record.quality.mean < 1
    assert record.quality.extra == {"acc_norm": results["acc_norm,none"]}
    documents = loader.load_task(str(path)).documents("test")
    backbone = load("nano")
    verdicts = weigh(Engine(backbone), [encode(backbone, d).question for d in documents])
    for document, verdict in zip(documents, verdicts, strict=True):
        seen = next(s for s in logged if s["doc_id"] == document.index)
        assert document.pairs == tuple(map(tuple, seen["arguments"]))
        for (found, greedy), said in zip(verdict.answers, (r[0] for r in seen["resps"]), strict=True):
            assert found == pytest.approx(float(said[0]), abs=1e-4) and greedy == (str(said[1]) == "True")
        assert samples[document.id].score == seen["acc"]


def test_a_continuation_is_weighed_the_same(tmp_path, folder, hf):
    """No examples, no context but the text; a perplexity needs the likelihoods, and is left out."""
    path = write(folder, "own_continues", CONTINUES)
    _, logged = theirs(path, hf, 2 * LIMIT)
    record, samples = ours(path, tmp_path / "out", 2 * LIMIT, "--prompt", "routed")
    assert record.task.metric == "acc" and record.task.chance == 0
    scored = {f"test-{s['doc_id']}": s["acc"] for s in logged}
    # lm-eval scores all rows, dlbench none of those that methods are fitted on
    assert record.task.fit_split == "a fifth of test, not scored" and len(samples) == 2 * LIMIT - 2 * LIMIT // 5
    assert {id_: s.score for id_, s in samples.items()} == {id_: scored[id_] for id_ in samples}
    assert record.quality and record.quality.mean == sum(s.score for s in samples.values()) / len(samples)
    assert all(s.tokens.generated == 0 and s.tokens.prompt > 0 for s in samples.values())
