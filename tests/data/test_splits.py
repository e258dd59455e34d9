"""Methods are never fitted on what is scored: splits are told apart by their rows, whatever they are called."""

import hashlib
import json
import random

import pytest
import small_model

from dlbench.cli import main
from dlbench.data import loader, splits
from dlbench.data.rows.duplicates import Questions
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record

USED = {"train": "training_split", "validation": "validation_split", "test": "test_split"}
CLASS = """
from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask


class Own(ConfigurableTask):
    VERSION, OUTPUT_TYPE = 1, "generate_until"

    def __init__(self, config=None):
        super().__init__(config={"metadata": {"version": 1}, "task": "own"})

    def download(self, *args, **kwargs):
        self.dataset = None

    def has_training_docs(self):
        return True

    def has_validation_docs(self):
        return True

    def has_test_docs(self):
        return False

    def training_docs(self):
        return [{"q": f"q {i}", "a": "r"} for i in range(TRAIN)]

    def validation_docs(self):
        return Dataset.from_list([{"q": f"q {i}", "a": f"r{i}"} for i in range(20)])

    def doc_to_text(self, doc):
        return f"Q: {doc['q']}"

    def doc_to_target(self, doc):
        return doc["a"]

    def construct_requests(self, doc, ctx, **kwargs):
        kwargs = {k: v for k, v in kwargs.items() if k == "metadata"}
        arguments = (ctx, {"until": ["\\n"]})
        return Instance(request_type="generate_until", doc=doc, arguments=arguments, idx=0, **kwargs)

    def process_results(self, doc, results):
        return {"match": float(results[0] == doc["a"])}

    def aggregation(self):
        return {"match": mean}

    def higher_is_better(self):
        return {"match": True}
"""


@pytest.fixture(autouse=True)
def quiet_files(tmp_path, monkeypatch):
    """The cache of `datasets` is a test's own."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def own(folder, rows, used=USED, **options):
    """A task over files of rows, {split: [row]}; returns the path of its YAML."""
    folder.mkdir(exist_ok=True)
    for split, several in rows.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in several))
    files = json.dumps({split: str(folder / f"{split}.jsonl") for split in rows})
    settings = {
        "dataset_path": "json",
        "dataset_kwargs": f"{{data_files: {files}}}",
        "output_type": "generate_until",
        "doc_to_text": "'Q: {{q}}'",
        "doc_to_target": "'{{a}}'",
        "generation_kwargs": '{until: ["\\n"], max_gen_toks: 5}',
        "metric_list": "[{metric: exact_match, aggregation: mean, higher_is_better: true}]",
        **{used[split]: split for split in rows},
        **options,
    }
    path = folder / "own.yaml"
    path.write_text("task: own\n" + "".join(f"{k}: {v}\n" for k, v in settings.items() if v is not None))
    return str(path)


def asked(*numbers, **more):
    return [{"q": f"q {i}", "a": f"r{i}", **more} for i in numbers]


def prompts(task, split, **more):
    return [d.prompt for d in task.documents(split, **more)]


def gpqa(i):
    return {
        "Question": f"q {i}",
        "Correct Answer": f"c {i}",
        **{f"Incorrect Answer {k}": f"w{k} {i}" for k in (1, 2, 3)},
    }


REAL = {
    # task of lm-eval: the one split that it names twice, a row of it
    "gsm8k_platinum": ("test", lambda i: {"question": f"q {i}", "answer": f"so\n#### {i}"}),
    "gsm_plus": ("test", lambda i: {"question": f"q {i}", "solution": f"so\n#### {i}"}),
    "gsm_plus_mini": ("testmini", lambda i: {"question": f"q {i}", "solution": f"so\n#### {i}"}),
    "aime": ("train", lambda i: {"Question": f"q {i}", "Answer": f"{i}"}),
    "aime25": ("test", lambda i: {"problem": f"q {i}", "answer": f"{i}"}),
    "gpqa_main_zeroshot": ("train", gpqa),  # the answers are shuffled at every reading
    "gpqa_diamond_cot_n_shot": ("train", gpqa),
    "leaderboard_gpqa_extended": ("train", gpqa),
    "french_bench_grammar": (  # the question stands in the answers, the prompt is the same for all
        "Grammar",
        lambda i: {"question": f"q {i} <...>", "answer": "ABCD"[i % 4], **{f"answer{c}": f"{c} {i}" for c in "ABCD"}},
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_tasks_of_lm_eval_that_name_one_split_twice(tmp_path, name):
    split, row = REAL[name]
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{split}.jsonl").write_text("".join(json.dumps(row(i)) + "\n" for i in range(40)))
    sources = Sources(data_dir=str(tmp_path))
    seen = []
    for _ in range(2):  # as two processes do
        loader.load_task.cache_clear()
        task = loader.load_task(name, sources)
        scored, fitted = task.documents("test"), task.documents("fit")
        assert task.fit_split == f"a fifth of {split}, not scored" and task.fit_overlap == 40
        assert (len(scored), len(fitted)) == (32, 8)
        found = [
            {task.inner.doc_to_text(task._row(d)) + str(task._row(d).get("question")) for d in side}
            for side in (scored, fitted)
        ]
        assert len(found[0] | found[1]) == 40 and not found[0] & found[1]
        seen.append((scored, fitted))
    assert seen[0] == seen[1]
    loader.load_task.cache_clear()


def test_python_draws_the_same_answers_whoever_reads(tmp_path):
    """Of a task that shuffles its answers, examples and all, and without a trace outside."""
    (tmp_path / "gpqa_diamond_cot_n_shot").mkdir()
    (tmp_path / "gpqa_diamond_cot_n_shot" / "train.jsonl").write_text(
        "".join(json.dumps(gpqa(i)) + "\n" for i in range(30))
    )
    sources, seen = Sources(data_dir=str(tmp_path), fewshot=2), []
    for start in (1, 2):
        loader.load_task.cache_clear()
        random.seed(start)
        before = random.getstate()
        seen.append(loader.load_task("gpqa_diamond_cot_n_shot", sources).documents("test"))
        assert random.getstate() == before
    loader.load_task.cache_clear()
    assert seen[0] == seen[1]
    assert len({d.references for d in seen[0]}) > 1  # they are shuffled


@pytest.mark.parametrize("twin", ["train", "validation"])
def test_the_same_rows_under_another_name_are_the_same_split(tmp_path, twin):
    task = loader.load_task(own(tmp_path / "t", {twin: asked(*range(20)), "test": asked(*reversed(range(20)))}))
    assert task.fit_split == "a fifth of test, not scored" and task.fit_overlap == 20
    assert len(prompts(task, "test")) == 16 and len(prompts(task, "fit")) == 4
    assert not {*prompts(task, "test")} & {*prompts(task, "fit")}


def test_what_stands_in_both_is_left_out_of_the_fit_side_and_counted(tmp_path):
    rows = {"train": asked(*range(30)), "test": asked(*range(20, 45))}
    task = loader.load_task(own(tmp_path / "t", rows))
    assert (task.fit_split, task.fit_overlap) == ("train", 10)
    assert prompts(task, "test") == [f"Q: q {i}" for i in range(20, 45)]
    fitted = task.documents("fit")
    assert [d.prompt for d in fitted] == [f"Q: q {i}" for i in range(20)]
    assert [d.id for d in fitted] == [f"fit-{i}" for i in range(20)]  # as they were
    assert task.score(fitted[3], "r3")["exact_match"] == 1


def test_ids_order_and_hash_stay_where_nothing_is_shared(tmp_path):
    rows = {"train": asked(*range(7), id="x"), "validation": asked(*range(7, 9)), "test": asked(*range(9, 20))}
    task = loader.load_task(own(tmp_path / "t", rows))
    assert (task.fit_split, task.fit_overlap) == ("train", 0)
    assert [d.id for d in task.documents("fit")] == [f"fit-{i}" for i in range(7)]
    alone = loader.load_task(own(tmp_path / "u", {"test": asked(*range(50))}))
    by_hash = sorted(range(50), key=lambda i: hashlib.sha256(f"test-{i}".encode()).digest())
    assert [d.index for d in alone.documents("fit")] == sorted(by_hash[:10]) and alone.fit_overlap == 0


def test_the_next_split_is_taken_where_nothing_of_the_first_is_left(tmp_path):
    rows = {"train": asked(*range(20)), "validation": asked(*range(30, 39)), "test": asked(*range(20))}
    task = loader.load_task(own(tmp_path / "t", rows))
    assert (task.fit_split, task.fit_overlap) == ("validation", 20)
    assert len(prompts(task, "test")) == 20 and len(prompts(task, "fit")) == 9


def test_one_question_with_other_answers_is_one_document(tmp_path):
    """A model that was tuned on it has seen it; many sets have a row for each reference."""
    other = [{"q": f"q {i}", "a": f"another {i}"} for i in range(20)]
    task = loader.load_task(own(tmp_path / "t", {"train": other + asked(50), "test": asked(*range(20))}))
    assert task.fit_overlap == 20 and prompts(task, "fit") == ["Q: q 50"]


def test_prompts_that_tell_nothing_apart_leave_it_to_the_references(tmp_path):
    """lm-eval's xlsum tasks quote the name of the column, so that all prompts are one."""
    rows = {"train": asked(*range(10)), "test": asked(*range(5, 20))}
    task = loader.load_task(own(tmp_path / "t", rows, doc_to_text="\"{{'text'}}\""))
    assert {*prompts(task, "test")} == {"text"} and task.fit_overlap == 5
    assert [d.references for d in task.documents("fit")] == [(f"r{i}",) for i in range(5)]


@pytest.mark.parametrize(
    ("kind", "options", "overlap"),
    [
        ("multiple_choice", {"doc_to_text": "'which?'", "doc_to_choice": "'{{[q, a]}}'", "doc_to_target": "1"}, 10),
        ("multiple_choice", {"doc_to_choice": "'{{[a, side]}}'", "doc_to_target": "0"}, 0),
        ("loglikelihood", {"doc_to_text": "'it goes on:'"}, 10),
        ("loglikelihood", {"doc_to_target": "'{{side}} {{a}}'"}, 0),
    ],
)
def test_answers_that_are_weighed_are_asked_about(tmp_path, kind, options, overlap):
    rows = {"train": asked(*range(20), side="train"), "test": asked(*range(10, 30), side="test")}
    more = {"output_type": kind, "generation_kwargs": None, **options}
    metric = "[{metric: acc, aggregation: mean, higher_is_better: true}]"
    task = loader.load_task(own(tmp_path / "t", rows, metric_list=metric, **more))
    assert (task.fit_split, task.fit_overlap) == ("train", overlap)
    assert len(task.documents("fit")) == 20 - overlap


LETTERS = "{% for c in c %}{{ 'ABCD'[loop.index0] }}MARK {{ c }}\\n{% endfor %}"
SHUFFLED = {
    "answers": {"doc_to_text": '"{{q}}"', "doc_to_choice": "c"},
    "answers of a template": {"doc_to_text": '"{{q}}"', "doc_to_choice": "'{{c}}'"},
    "letters": {
        "doc_to_text": f'"{{{{q}}}}\\n{LETTERS}Answer:"'.replace("MARK", "."),
        "doc_to_choice": '["A", "B", "C", "D"]',
    },
    "speakers' letters": {
        "doc_to_text": f'"{{{{q}}}}\\n{LETTERS}Answer:"'.replace("MARK", ":"),
        "doc_to_choice": '["(A)", "(B)", "(C)", "(D)"]',
    },
    "bullets": {"doc_to_text": "\"{{q}}\\n- {{ c | join('\\n- ') }}\\nAnswer:\"", "doc_to_choice": "c"},
    "letters to write": {
        "doc_to_text": '"{{q}} (A) {{c[0]}} (B) {{c[1]}} (C) {{c[2]}} (D) {{c[3]}}\\nAnswer:"',
        "output_type": "generate_until",
    },
}


@pytest.mark.parametrize("form", SHUFFLED)
def test_answers_in_another_order_make_no_other_question(tmp_path, form):
    def row(i, turn=0, last="w"):
        several = [f"c {i}", f"x {i}", f"y {i}", f"{last} {i}"]
        return {"q": f"q {i}?", "c": several[turn:] + several[:turn], "place": -turn % 4}

    rows = {
        "train": [row(i, turn=i % 4) for i in range(10)] + [row(i, last="other") for i in range(5)],
        "test": [row(i) for i in range(10)],
    }
    more = {"output_type": "multiple_choice", "doc_to_target": "place", **SHUFFLED[form]}
    if more["output_type"] == "multiple_choice":
        metric = "[{metric: acc, aggregation: mean, higher_is_better: true}]"
        more |= {"generation_kwargs": None, "metric_list": metric}
    else:
        more["doc_to_target"] = "'{{place}}'"
    task = loader.load_task(own(tmp_path / "t", rows, **more))
    assert task.fit_overlap == 10 and [d.index for d in task.documents("fit")] == [10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    "text",
    [
        "A: {0}\\nB: {1}\\nA: bye\\nB:",  # who speaks first matters
        "A. {0}\\nB. {1}\\nDoes A follow from B?",
        "1. {0}\\n2. {1}\\n3. stir\\nWhat comes first?",
        "{0} is in the hall.\\n{1} is in the attic.\\nWho is in the hall?",
    ],
)
def test_what_only_looks_like_answers_keeps_its_order(tmp_path, text):
    rows = {"train": asked(*range(9)), "test": asked(*range(9))}
    for row in rows["train"]:
        row["q"], row["a"] = row["a"], row["q"]
    both = '"' + text.format("{{q}}", "{{a}}") + '"'
    task = loader.load_task(own(tmp_path / "t", rows, doc_to_text=both))
    assert task.fit_overlap == 0 and len(task.documents("fit")) == 9


@pytest.mark.parametrize("count", [1, 3])
def test_scored_rows_that_all_ask_one_question_are_not_fitted_on(tmp_path, count):
    """By other references they would be other documents, if prompts told nothing apart; these do."""
    rows = {
        "train": [{"q": "q 1", "a": "another"}, *asked(2, 3)],
        "test": [{"q": "q 1", "a": f"{i}"} for i in range(count)],
    }
    task = loader.load_task(own(tmp_path / "t", rows))
    assert task.fit_overlap == 1 and prompts(task, "fit") == ["Q: q 2", "Q: q 3"]


def test_one_document_twice_is_not_fitted_on(tmp_path):
    task = loader.load_task(own(tmp_path / "t", {"train": [{"q": "q 1", "a": "another"}], "test": asked(1)}))
    assert task.fit_overlap == 1 and len(prompts(task, "test")) == 1
    with pytest.raises(DlbenchError, match="too few documents to fit on"):
        task.documents("fit")


def test_what_asks_the_same_never_straddles_the_fifth(tmp_path):
    rng = random.Random(3)
    for size in (13, 40, 90):
        rows = asked(*(rng.randrange(size // 2) for _ in range(size)))
        loader.load_task.cache_clear()
        task = loader.load_task(own(tmp_path / f"t{size}", {"test": rows}))
        scored, fitted = prompts(task, "test"), prompts(task, "fit")
        assert len(set(rows_ := [f"Q: {r['q']}" for r in rows])) < size
        assert not {*scored} & {*fitted} and sorted(scored + fitted) == sorted(rows_)
        assert 0 < len(fitted) <= size // 5


@pytest.mark.parametrize("size", [1, 3, 5])
def test_what_shares_a_source_never_straddles_the_fifth(tmp_path, size):
    path = tmp_path / "own.jsonl"
    rows = [{"input": f"i {i}", "references": ["r"], "source": f"s {i // size}", "id": str(i)} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = loader.load_task(f"file:{path}")
    fitted, scored = ({int(d.id.split("-")[-1]) for d in task.documents(split)} for split in ("fit", "test"))
    assert len(fitted) == 12 - 12 % size and len(fitted) + len(scored) == 60
    assert not {i // size for i in fitted} & {i // size for i in scored}


def test_a_source_that_all_share_sets_none_apart(tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"input": f"i {i}", "references": ["r"], "source": "the book"} for i in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(loader.load_task(f"file:{path}").documents("fit")) == 4


def test_a_fifth_of_pairs_is_a_pair(tmp_path):
    task = loader.load_task(own(tmp_path / "t", {"test": asked(*(i // 2 for i in range(8)))}))
    assert len(prompts(task, "fit")) == 2 and not {*prompts(task, "fit")} & {*prompts(task, "test")}
    same = loader.load_task(own(tmp_path / "u", {"test": asked(*[1] * 20)}))
    assert len(prompts(same, "test")) == 20
    with pytest.raises(DlbenchError, match="too few documents to fit on"):
        same.documents("fit")


@pytest.mark.parametrize(("count", "fit", "left"), [(15, "a fifth of validation, not scored", 4), (26, "train", 6)])
def test_tasks_in_python_too(tmp_path, count, fit, left):
    """They have no names of splits, and may give rows as a list."""
    (tmp_path / "code.py").write_text(CLASS.replace("TRAIN", str(count)))
    (tmp_path / "own.yaml").write_text("task: own\nclass: !function code.Own\n")
    loader.load_task.cache_clear()
    task = loader.load_task(str(tmp_path / "own.yaml"))
    assert (task.fit_split, task.fit_overlap) == (fit, min(count, 20))
    assert len(prompts(task, "fit")) == left and not {*prompts(task, "test")} & {*prompts(task, "fit")}
    loader.load_task.cache_clear()


def test_of_a_large_split_no_more_rows_are_looked_at_than_are_needed(tmp_path, monkeypatch):
    monkeypatch.setattr(splits, "FIT_DOCUMENTS", 30)
    hashed = []
    true = Questions.hash
    monkeypatch.setattr(Questions, "hash", lambda self, row: hashed.append(row["q"]) or true(self, row))
    task = loader.load_task(own(tmp_path / "t", {"train": asked(*range(400)), "test": asked(*range(390, 410))}))
    fitted = prompts(task, "fit")
    order = sorted(range(400), key=lambda i: hashlib.sha256(f"fit-{i}".encode()).digest())
    assert fitted == [f"Q: q {i}" for i in sorted([i for i in order if i < 390][:30])]
    assert len(hashed) <= 20 + 30 + task.fit_overlap <= 60
    everything = prompts(task, "fit", whole=True)
    assert everything == [f"Q: q {i}" for i in range(390)]


def test_a_fit_split_that_cannot_be_read_is_told_where_it_is_needed(tmp_path):
    path = own(tmp_path / "t", {"test": asked(*range(9))}, training_split="nowhere", fewshot_split="test")
    task = loader.load_task(path)
    assert len(task.documents("test")) == 9 and task.fit_split == "nowhere"
    with pytest.raises(DlbenchError, match="its split 'nowhere' cannot be read: KeyError"):
        task.documents("fit")


def test_a_run_says_so_at_its_start_and_in_every_record(tmp_path, capsys):
    small_model.save(tmp_path / "small")
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, numbers in (("train", range(30)), ("test", range(25, 40))):
        lines = [{"input": f"text {i}", "references": [f"word {i}"]} for i in numbers]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    line = f"run --model {tmp_path / 'small'} --task file:{folder} --method full --no-timing"
    assert main([*line.split(), "--max-new-tokens", "2", "--limit", "3", "--out", str(tmp_path / "out")]) == 0
    said = "file:mine: 5 documents that methods would be fitted on are scored too, and left out; fitted on: train"
    assert said in " ".join(capsys.readouterr().err.split())
    records = list(read_lines(tmp_path / "out" / "records.jsonl", Record))
    assert {(r.task.fit_split, r.task.fit_overlap, r.task.of, r.task.n, r.task.drawn) for r in records} == {
        ("train", 5, 15, 3, "sample")
    }
