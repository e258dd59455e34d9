"""Documents that share a source: where it is named, and that intervals of records, boards and comparisons hold it."""

import dataclasses
import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from record_samples import conditions, document, sample

from dlbench import stats
from dlbench.data import lm_eval_index, loader
from dlbench.data.rows.sources import COLUMNS, clusters, merged, source
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.evaluation.aggregate import Evaluation, Reference, quality
from dlbench.evaluation.record import build
from dlbench.evaluation.settings import Setting
from dlbench.methods.static_skip import StaticSkip

# ---- what a source is


def test_a_source_is_a_column_a_field_or_a_function_of_the_row():
    doc = {"title": "Rome", "meta": {"page": 3}, "a.b": "x", "context": "long text"}
    said = [source(doc, named, None, "t") for named in ("title", "meta.page", "a.b", lambda d: d["context"][:4])]
    assert len(set(said)) == 4 and all(re.fullmatch("[0-9a-f]{16}", one) for one in said)
    assert source({"title": " Rome "}, "title", None, "t") == said[0] != source({"title": "rome"}, "title", None, "t")
    assert source({"title": None}, "title", None, "t") is source({"title": " "}, "title", None, "t") is None
    assert source(doc, None, None, "t") is source(doc, None, "nobody/knows", "t") is None


@pytest.mark.parametrize("named", ["titel", "meta.pages", "title.first"])
def test_a_column_that_is_not_there_is_told(named):
    with pytest.raises(DlbenchError, match=f"task 't': its metadata names the source '{named}', but documents hold"):
        source({"title": "Rome", "meta": {"page": 3}}, named, None, "t")


def test_of_known_datasets_the_first_column_that_is_there_counts():
    known = [source({column: "x", "label": 1}, None, "aps/super_glue", "t") for column in ("passage", "premise")]
    assert known[0] == known[1] is not None
    assert source({"sentence": "x"}, None, "aps/super_glue", "t") is None  # another of its tasks


def test_clusters_are_sources_and_documents_without_one():
    shared = clusters(["a", "b", "c", "d"], {"a": "1", "b": "2", "c": "1"})
    assert shared is not None and shared[0] == shared[2] and len(set(shared)) == 3
    assert clusters(["a", "b"], {"a": "1", "b": "2"}) is None  # nothing is shared
    assert clusters(["a", "b"], {}) is None
    assert clusters(["a", "b"], {"a": "1", "b": "1"}) is None  # a task about one source is about its documents
    assert clusters(["a", "b", "c"], {"a": "1", "b": "1"}) is not None
    one, other = (clusters(["a", "b", "c"], {"a": "1", "b": "1"}, prefix) for prefix in ("x: ", "y: "))
    assert one is not None and other is not None and not {*one} & {*other}


def test_sources_stay_as_they_are_where_no_question_stands_twice():
    assert merged(["1", None, "1"], [b"a", b"b", b"c"]) == ["1", None, "1"]
    assert merged(["1", "1"], [b"a", b"b"]) == ["1", "1"]
    assert merged([None, None, None], [None, None, b"a"]) == [None, None, None]
    assert merged([], []) == []


def test_what_is_asked_twice_is_of_one_source():
    first, other, again = merged([None, None, None], [b"a", b"b", b"a"])
    assert first == again is not None and other is None
    assert re.fullmatch("[0-9a-f]{16}", first)


def test_sources_that_share_a_question_merge():
    # 1 and 2 share b, 2 and 3 share c, and a row without a source repeats what 4 asks.
    sources = ["3", "1", "2", "2", "3", "4", None, "5", None]
    asked = [b"x", b"b", b"b", b"c", b"c", b"d", b"d", b"e", b"f"]
    assert merged(sources, asked) == ["1", "1", "1", "1", "1", "4", "4", "5", None]


def test_a_source_that_all_share_hides_no_question_that_stands_twice():
    found = merged(["1"] * 4, [b"a", b"b", b"a", b"c"])
    assert found[0] == found[2] is not None and found[1] is found[3] is None


def test_a_file_that_holds_its_documents_five_times_is_as_sure_as_once(tmp_path):
    rng, widths = np.random.default_rng(0), []
    scores = rng.random((2, 20))
    for copies in (1, 5):
        rows = [{"input": f"Question {i}?", "references": [f"answer {i}"]} for _ in range(copies) for i in range(20)]
        train = [{"input": f"Another {i}?", "references": ["x"]} for i in range(9)]
        said = found("squad", mirror(tmp_path / str(copies), "squad", train=train, validation=rows))
        shared = clusters([str(i) for i in range(len(said))], {str(i): one for i, one in enumerate(said)})
        assert (shared is None) == (copies == 1)
        one = stats.paired_difference(*(np.tile(row, copies) for row in scores), bounds=(0, 1), clusters=shared)
        widths.append(one.high - one.low)
    assert widths[1] == pytest.approx(widths[0], rel=1e-6)


# ---- tasks

TASKS = {
    # a task of lm-eval over the dataset, whose folder uses the column
    "CogComp/mc_taco": "mc_taco",
    "Davlan/NaijaRC": "naijarc_hau_prompt_1",
    "EleutherAI/drop": "drop",
    "EleutherAI/logiqa": "logiqa",
    "HiTZ/EusReading": "eus_reading",
    "Rakuten/JGLUE": "ja_leaderboard_jsquad",
    "TAUR-Lab/MuSR": "leaderboard_musr_murder_mysteries",
    "TIGER-Lab/MMLU-Pro": "mmlu_pro_biology",
    "allenai/qasper": "qasper_bool",
    "aps/super_glue": "boolq",
    "baber/logiqa2": "logiqa2",
    "community-datasets/qa4mre": "qa4mre_2011",
    "facebook/anli": "anli_r1",
    "facebook/belebele": "belebele_fin_Latn",
    "facebook/mlqa": "mlqa_en_en",
    "facebook/xnli": "xnli_en",
    "google-research-datasets/tydiqa": "tydiqa_goldp_en",
    "google/xquad": "xquad_en",
    "lighteval/siqa": "social_iqa",
    "lighteval/squad_v2": "squadv2",
    "ltg/norquad": "norquad_p0",
    "manu/fquad2_test": "french_bench_fquadv2",
    "nyu-mll/glue": "mnli",
    "projecte-aina/catalanqa": "catalanqa",
    "projecte-aina/xquad-ca": "xquad_ca",
    "skt/kobest_v1": "kobest_boolq",
}
UNSAID = {"Rowan/hellaswag", "cais/mmlu"}
"""lm-eval's prompts need no such column; the datasets' own cards name it."""


def test_the_columns_are_those_that_lm_eval_reads():
    assert {*TASKS} | UNSAID == {*COLUMNS}
    for dataset, task in TASKS.items():
        folder = Path(str(lm_eval_index.entries()[task].path)).parent
        text = "".join(p.read_text(errors="replace") for p in folder.iterdir() if p.is_file() and p.suffix != ".pyc")
        assert dataset in text, task
        assert re.search(rf"\b{COLUMNS[dataset][0]}\b", text), task


def mirror(folder, name, **splits):
    for split, rows in splits.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Sources(data_dir=str(folder))


def found(name, sources):
    """The sources of a task's scored documents; what is fitted on needs none."""
    loader.load_task.cache_clear()
    task = loader.load_task(name, sources)
    assert {d.source for d in task.documents("fit")} == {None}
    return [d.source for d in task.documents("test")]


def pattern(values):
    return [list(values).index(one) for one in values]


def test_questions_about_one_passage_share_it(tmp_path):
    texts = [f"Rome {i // 2} is old.\n\nQuestion: what {i}?\n\nQuestion: it is {i}?" for i in range(6)]
    rows = [{"input": text, "references": ["x"]} for text in texts]
    train = [{"input": f"Oslo.\n\nQuestion: who {i}?", "references": ["x"]} for i in range(6)]
    (tmp_path / "hub").mkdir()
    assert len(set(found("squad", mirror(tmp_path / "a", "squad", train=train, validation=rows)))) == 6
    plain = [{"input": f"Rome {i // 2} is old.\n\nQuestion: what {i}?", "references": ["x"]} for i in range(6)]
    said = found("squad", mirror(tmp_path / "b", "squad", train=train, validation=plain))
    assert pattern(said) == [0, 0, 2, 2, 4, 4]


def test_subjects_passages_and_premises_of_known_datasets(tmp_path):
    def mmlu(i, side):
        return {"question": f"{side} {i}", "subject": f"s{i % 3}", "choices": [*"abcd"], "answer": 0}

    sources = mirror(
        tmp_path, "mmlu_all", validation=[mmlu(i, "v") for i in range(3)], test=[mmlu(i, "t") for i in range(6)]
    )
    assert pattern(found("mmlu_all", sources)) == [0, 1, 2, 0, 1, 2]
    swag = {"ind": 1, "activity_label": "Cooking", "ctx_a": "A person", "endings": [*"abcd"], "label": "1"}
    rows = {
        side: [{**swag, "ctx_b": f"{side} {i}", "source_id": f"video {i // 3}"} for i in range(6)]
        for side in ("train", "validation")
    }
    assert pattern(found("hellaswag", mirror(tmp_path, "hellaswag", **rows))) == [0, 0, 0, 3, 3, 3]
    rows = {
        f"{side}_r1": [{"premise": f"{side} {i // 3}", "hypothesis": f"h{i}", "label": i % 3} for i in range(9)]
        for side in ("train", "dev", "test")
    }
    assert pattern(found("anli_r1", mirror(tmp_path, "anli_r1", **rows))) == [0, 0, 0, 3, 3, 3, 6, 6, 6]
    rows = {
        side: [{"passage": f"{side} {i // 2}", "question": f"is it {i}", "label": i % 2} for i in range(6)]
        for side in ("train", "validation")
    }
    assert pattern(found("boolq", mirror(tmp_path, "boolq", **rows))) == [0, 0, 2, 2, 4, 4]


def test_a_yaml_of_ones_own_names_its_source(tmp_path):
    rows = [{"q": f"q{i}", "a": "r", "meta": {"page": i // 4}} for i in range(20)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"""
task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{tmp_path}/test.jsonl"}}}}
test_split: test
output_type: generate_until
doc_to_text: q
doc_to_target: a
generation_kwargs: {{until: ["."]}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1, source: meta.page}}
"""
    (tmp_path / "own.yaml").write_text(text)
    # The fifth that is set apart for fitting is one of the five pages.
    assert sorted(Counter(found(str(tmp_path / "own.yaml"), Sources())).values()) == [4, 4, 4, 4]
    (tmp_path / "slip.yaml").write_text(text.replace("meta.page", "meta.pgae"))
    with pytest.raises(DlbenchError, match=r"names the source 'meta.pgae', but documents hold q, a, meta"):
        loader.load_task(str(tmp_path / "slip.yaml")).documents("test")


def write(path, sources):
    lines = [
        {"input": f"text {i}", "references": ["x"]} | ({} if s is None else {"source": s})
        for i, s in enumerate(sources)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"file:{path}"


def test_a_file_may_name_sources_line_by_line(tmp_path):
    given = [None, "book", "book", 7, "7", None, "film", "book", None, "film"]
    task = loader.load_task(write(tmp_path / "mine.jsonl", given))
    said = {d.index: d.source for d in task.documents("test")}
    assert len(said) == 8
    for i, one in said.items():
        assert (one is None) == (given[i] is None)
        assert all((one == other) == (str(given[i]) == str(given[k])) for k, other in said.items())
    assert {d.source for d in loader.load_task(write(tmp_path / "none.jsonl", [None] * 9)).documents("test")} == {None}


@pytest.mark.parametrize("wrong", ["", "  ", True, ["book"], {"title": "book"}, 1.5])
def test_a_source_that_is_no_text_is_told_by_its_line(tmp_path, wrong):
    with pytest.raises(DlbenchError, match=r'mine\.jsonl, line 2: "source" must be a text that is not empty'):
        loader.load_task(write(tmp_path / "mine.jsonl", ["book", wrong]))


# ---- a record's own interval

IDS = [f"d{i}" for i in range(48)]
PASSAGES = [f"{i % 12:016x}" for i in range(48)]
LABELS = [i % 12 for i in range(48)]


def correlated(shift=0.0, seed=1):
    """Scores of 48 documents of twelve passages: those of a passage rise and fall together."""
    rng = np.random.default_rng(seed)
    return np.clip(0.6 + shift + rng.normal(0, 0.1, 12)[LABELS] + rng.normal(0, 0.02, 48), 0, 1)


def test_a_records_interval_resamples_passages():
    full, half = correlated(), correlated(-0.1, 2)
    documents = [dataclasses.replace(document(id_, index=i), source=PASSAGES[i]) for i, id_ in enumerate(IDS)]
    reference = {i: sample(i, s, (4, 4)) for i, s in zip(IDS, full.tolist(), strict=True)}
    base = Reference(4, SimpleNamespace(dense=lambda prompt, generated: 8), reference)
    samples = [sample(i, s, (2, 2)) for i, s in zip(IDS, half.tolist(), strict=True)]
    setting = Setting("static_skip", "static_skip", StaticSkip(), 0.5, key="0" * 32)
    record = build(Evaluation(conditions(), documents, base), setting, samples)
    by_hand = stats.retained(half, full, clusters=LABELS)
    assert record.quality.retained_ci95 == pytest.approx((by_hand.low, by_hand.high), abs=1e-12)
    assert record.task.sources == 12
    alone = build(Evaluation(conditions(), [document(i) for i in IDS], base), setting, samples)
    assert alone.task.sources is None
    widths = [np.diff(one.quality.retained_ci95)[0] for one in (record, alone)]
    assert widths[0] > 1.3 * widths[1]


def test_an_interval_covers_the_truth_though_documents_share_passages():
    """Full keeps 1 of itself; what the method adds is the passage's: a simulation with a known ratio."""
    rng = np.random.default_rng(11)
    held = {True: 0, False: 0}
    for _ in range(60):
        passages = rng.integers(0, 2, (40, 1)) * np.ones((40, 8))  # eight questions each, all right or all wrong
        wrong = rng.random((40, 1)) < 0.3
        half = np.where(wrong, 0.0, passages)
        for shared in held:
            labels = tuple(f"p{i}" for i in range(40) for _ in range(8)) if shared else None
            found = quality(half.ravel().tolist(), passages.ravel().tolist(), clusters=labels).retained_ci95
            held[shared] += found is not None and found[0] <= 0.7 <= found[1]
    assert held[True] >= 0.93 * 60 and held[False] < 0.75 * 60
