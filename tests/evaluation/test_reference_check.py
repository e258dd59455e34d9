"""A metric that cannot read a task's references is reported before the run and in every record."""

import json

import pytest
import small_model

from dlbench.cli import main
from dlbench.data import loader
from dlbench.evaluation import reference_check
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record

CHINESE = ["今天天气很好，我们去公园散步。", "昨天下了一场很大的雨。", "明天早上八点开会。"]
DATED = ["今天是2024年3月5日。", "昨天下了5场雨，共20小时。", "明天8点开会。"]
RUSSIAN = ["Мальчик пошёл в школу.", "Вчера был сильный дождь.", "Завтра в восемь собрание."]
ENGLISH = ["The boy went to school.", "It rained a lot, café or not.", "Tomorrow at 8 we meet."]
HELPERS = """
import json
import pathlib
from collections import Counter
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

def read(path, **_):
    from datasets import Dataset
    return {"test": Dataset.from_list([json.loads(line) for line in pathlib.Path(path).read_text().splitlines()])}

def rouge(doc, results):  # what lm-eval's tasks do
    scores = RougeScorer(["rougeL"]).score(doc["a"], results[0])
    return {"rougeL": scores["rougeL"].fmeasure}

def bleu(doc, results):
    return {"bleu": sacrebleu.sentence_bleu(results[0], [doc["a"]]).score}

def f1(doc, results):
    one, other = results[0].split(), doc["a"].split()
    return {"f1": 2 * sum((Counter(one) & Counter(other)).values()) / max(1, len(one) + len(other))}

def boxed(doc, results):
    return {"exact_match": float(results[0] == "\\\\boxed{" + doc["a"] + "}")}

def raises(doc, results):
    raise ValueError("no answer in it")
"""


def write(folder, references, scoring=None, metric="exact_match", **options):
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"q": f"q{i}", "a": text}) for i, text in enumerate(references * 5)]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "scoring_helpers.py").write_text(HELPERS)
    settings = {
        "custom_dataset": "!function scoring_helpers.read",
        "dataset_kwargs": json.dumps({"path": str(folder / "test.jsonl")}),
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "'{{q}}'",
        "doc_to_target": "'{{a}}'",
        "generation_kwargs": '{until: ["\\n"], max_gen_toks: 5}',
        "metric_list": f"[{{metric: {metric}, aggregation: mean, higher_is_better: true}}]",
        **({"process_results": f"!function scoring_helpers.{scoring}"} if scoring else {}),
        **options,
    }
    path = folder / "own.yaml"
    path.write_text("task: own\n" + "".join(f"{k}: {v}\n" for k, v in settings.items()))
    return str(path)


def said(path):
    task = loader.load_task(path)
    return reference_check.complaints(task, task.documents("test"))


@pytest.mark.parametrize(
    ("references", "scoring", "metric", "words"),
    [
        (CHINESE, "rouge", "rougeL", "12 of 12 references looked at get less than half of the marks"),
        (RUSSIAN, "rouge", "rougeL", "cannot read them, or wants another form"),
        (DATED, "rouge", "rougeL", "12 of 12 references looked at have letters that rougeL does not see"),
        (CHINESE, "bleu", "bleu", "have sentences that bleu takes for one word"),
        (CHINESE, "f1", "f1", "have sentences that f1 takes for one word"),
        (ENGLISH, "boxed", "exact_match", "12 of 12 references looked at get less than half"),
    ],
)
def test_what_a_metric_cannot_read_is_told(tmp_path, references, scoring, metric, words):
    (line,) = said(write(tmp_path / "t", references, scoring, metric))
    assert words in line and metric in line and len(line) < 300


@pytest.mark.parametrize(
    ("references", "scoring", "metric"),
    [
        (ENGLISH, "rouge", "rougeL"),
        (ENGLISH, "bleu", "bleu"),
        (RUSSIAN, "bleu", "bleu"),
        (RUSSIAN, "f1", "f1"),
        (CHINESE, None, "exact_match"),
        (ENGLISH, "raises", "exact_match"),
    ],
)
def test_what_it_can_read_is_not(tmp_path, references, scoring, metric):
    assert said(write(tmp_path / "t", references, scoring, metric)) == ()


def test_a_filter_that_looks_for_an_answer_in_a_text_is_no_fault(tmp_path):
    """Of a reference by itself it makes nothing; and what it makes of numbers among other letters is right."""
    listed = "[{name: a, filter: [{function: regex, regex_pattern: 'ANSWER=(.*)'}, {function: take_first}]}]"
    assert said(write(tmp_path / "a", ENGLISH, filter_list=listed)) == ()
    numbers = "[{name: a, filter: [{function: regex, regex_pattern: '(\\d+)'}, {function: take_first}]}]"
    assert said(write(tmp_path / "b", ["8", "20"], filter_list=numbers)) == ()


@pytest.mark.parametrize("metric", ["rougeL", "bleu", "chrf", "exact", "f1"])
@pytest.mark.parametrize("references", [CHINESE, DATED, RUSSIAN, ENGLISH], ids=["zh", "dated", "ru", "en"])
def test_metrics_of_ours_read_everything(tmp_path, references, metric):
    from dlbench.data.task_options import Sources

    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"input": "x", "references": [text]}) + "\n" for text in references))
    task = loader.load_task(f"file:{path}", Sources(metric=metric))
    assert reference_check.complaints(task, task.documents("test")) == ()


def test_references_without_a_word_are_told(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"input": "x", "references": [t]}) + "\n" for t in ("👍", ":-)", "fine")))
    task = loader.load_task(f"file:{path}")
    (line,) = reference_check.complaints(task, task.documents("test"))
    assert line.startswith("1 of 3 references looked at get less than half of the marks as answers under rougeL")


def test_it_looks_at_as_many_documents_on_every_machine(tmp_path, monkeypatch):
    looked = []
    task = loader.load_task(write(tmp_path / "t", ENGLISH * 60))
    monkeypatch.setattr(task, "judge", lambda document, text: looked.append(document.index) or 1.0)
    documents = task.documents("test")
    assert (
        reference_check.complaints(task, documents) == ()
        and 0.8 * reference_check.DOCUMENTS <= len(looked) <= reference_check.DOCUMENTS
    )
    assert max(looked) > 0.9 * documents[-1].index


def rows_of(name):
    """Rows as the hub has them."""
    for i in range(6):
        if name == "drop":
            answer = {"number": str(i), "date": {"day": "", "month": "", "year": ""}, "spans": [], "hit_id": f"h{i}"}
            several = {"number": [str(i)], "date": [answer["date"]], "spans": [[]], "hit_id": ["h"]}
            yield {"query_id": f"{i}", "section_id": "s", "passage": f"p {i}", "question": f"q {i}",
                   "answer": answer, "validated_answers": several}  # fmt: skip
        else:
            right, wrong = f"The right answer is b {i}", f"Nobody knows but w {i}"
            answers = {"best_answer": right, "correct_answers": [right], "incorrect_answers": [wrong]}
            yield {"question": f"q {i}", **answers}


@pytest.mark.parametrize(("name", "split"), [("drop", "validation"), ("truthfulqa_gen", "validation")])
def test_what_stands_in_for_references_is_no_complaint(tmp_path, name, split):
    """lm-eval's YAML of drop joins the keys of an answer, that of truthfulqa_gen gives a space."""
    from dlbench.data.task_options import Sources

    (tmp_path / name).mkdir()
    for part in {split, "train"}:
        (tmp_path / name / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(name)))
    task = loader.load_task(name, Sources(data_dir=str(tmp_path)))
    documents = task.documents("test")
    assert len({d.references for d in documents}) == 1 and reference_check.complaints(task, documents) == ()
    number = documents[0].index
    truth = {"drop": f"{number}", "truthfulqa_gen": f"The right answer is b {number}."}[name]
    assert task.score(documents[0], truth)[task.metric] > 0.9


def test_one_reference_for_all_is_none(tmp_path):
    assert said(write(tmp_path / "zero", ["0"], "boxed")) == ()
    assert said(write(tmp_path / "blank", [" ", "  "], "boxed")) == ()
    assert len(said(write(tmp_path / "some", ["0", "1"], "boxed"))) == 1


def test_a_run_tells_it_and_its_records_keep_it(tmp_path, capsys):
    model = small_model.save(tmp_path / "small")
    task = write(tmp_path / "t", CHINESE, "rouge", "rougeL")
    line = ["run", "--model", str(model), "--task", task, "--method", "static_skip", "--budget", "0.5", "--limit", "8"]
    assert main([*line, "--no-timing", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().err
    assert told.count("own: 8 of 8 references looked at get less than half") == 1
    records = list(read_lines(tmp_path / "out" / "records.jsonl", Record))
    assert len(records) == 2
    assert all(any("references looked at get less than half" in note for note in r.notes) for r in records)
