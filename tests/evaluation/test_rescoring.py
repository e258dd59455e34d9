"""Stored outputs are scored again: after an edit of the scoring no old score remains."""

import json
import sys
import tracemalloc

import pytest
import small_model
from record_samples import sample

from dlbench.cli import main
from dlbench.data import loader
from dlbench.errors import DlbenchError
from dlbench.evaluation.rescoring import rescore
from dlbench.records.jsonl import format_line, read_lines
from dlbench.records.run_folder import Store
from dlbench.records.schema import CandidateScore, Record, Sample

WRITES = """
task: own_writes
custom_dataset: !function scoring.read
dataset_kwargs: {path: FOLDER/test.jsonl}
test_split: test
doc_to_text: "{{q}}"
doc_to_target: many
process_results: !function scoring.judge
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: 6, do_sample: false}
filter_list:
  - name: first
    filter: [{function: regex, regex_pattern: "PATTERN"}, {function: take_first}]
metric_list:
  - {metric: letters, aggregation: mean, higher_is_better: true}
"""
WEIGHS = """
task: own_weighs
custom_dataset: !function scoring.read
dataset_kwargs: {path: FOLDER/test.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: many
doc_to_target: gold
process_results: !function scoring.prefer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
SCORING = """
import json
import pathlib

import scoring_share

def read(path, **_):
    from datasets import Dataset
    return {"test": Dataset.from_list([json.loads(line) for line in pathlib.Path(path).read_text().splitlines()])}

def judge(doc, results):
    return {"letters": scoring_share.share(results[0]) * 1.0 / len(doc["many"])}

def prefer(doc, results):
    likelihoods = [likelihood for likelihood, greedy in results]
    return {"acc": float(likelihoods.index(max(likelihoods)) == doc["gold"])}
"""
SHARE = """
def share(text):
    return sum(c in "aeiou" for c in text) / max(1, len(text))
"""
COUNT = 12


def lay(folder):
    """Two tasks whose scoring stands in a module that imports another."""
    folder.mkdir()
    rows = [{"q": f"the number {i} is", "many": [f"a{i}", f"the {i}"], "gold": i % 2} for i in range(COUNT)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "writes.yaml").write_text(WRITES.replace("FOLDER", str(folder)).replace("PATTERN", "(.*)"))
    (folder / "weighs.yaml").write_text(WEIGHS.replace("FOLDER", str(folder)))
    (folder / "scoring.py").write_text(SCORING)
    (folder / "scoring_share.py").write_text(SHARE)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_model.save(tmp_path_factory.mktemp("rescoring") / "small")


@pytest.fixture
def run(model, capsys, monkeypatch):
    """Run a task as a new process would: nothing that it imported before is left."""

    def run(folder, out, *more, task="writes", methods=("static_skip",)):
        monkeypatch.syspath_prepend(folder)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)  # an edit of the same second and length is not seen
        for name in ("scoring_share", str(folder / "scoring")):
            sys.modules.pop(name, None)
        loader.load_task.cache_clear()
        line = ["run", "--model", model, "--task", folder / f"{task}.yaml", "--out", out, "--budget", "0.5"]
        line += [word for m in methods for word in ("--method", m)] + ["--limit", "all", "--processes", "1", *more]
        capsys.readouterr()
        assert main([*map(str, line), "--no-timing"]) == 0
        return " ".join(capsys.readouterr().err.split())

    yield run
    sys.modules.pop("scoring_share", None)
    loader.load_task.cache_clear()


def figures(out):
    """By method: what the record says, and the scores and the work of its samples."""
    found = {}
    for record in read_lines(out / "records.jsonl", Record):
        samples = list(read_lines(out / "samples" / f"{record.key}.jsonl", Sample))
        work = [(s.id, s.output, s.layers, s.flops) for s in samples]
        found[record.method.name] = record.key, record.quality.mean, {s.id: s.score for s in samples}, work
    return found


def changed(first, second):
    """Assert that two runs hold the same outputs under the same keys, and no equal mean score."""
    assert first.keys() == second.keys()
    for name in first:
        (key, mean, _, work), (other_key, other_mean, _, other_work) = first[name], second[name]
        assert (key, work) == (other_key, other_work) and mean != other_mean, name


def test_an_edited_scoring_is_in_force_at_once(run, tmp_path):
    """The helper of a helper, `process_results` itself, and a filter: each changes the scores and no output."""
    folder, out = lay(tmp_path / "tasks"), tmp_path / "out"
    assert "scored anew" not in run(folder, out)
    first = figures(out)
    (folder / "scoring_share.py").write_text(SHARE.replace("aeiou", "etnrs"))
    said = run(folder, out)
    second = figures(out)
    changed(first, second)
    assert "samples of earlier runs are scored anew: the task's scoring has changed" in said
    outputs = {s.id: s.output for s in read_lines(out / "samples" / f"{second['full'][0]}.jsonl", Sample)}
    by_hand = {i: sum(c in "etnrs" for c in text) / max(1, len(text)) / 2 for i, text in outputs.items()}
    assert second["full"][2] == pytest.approx(by_hand)

    (folder / "scoring.py").write_text(SCORING.replace("* 1.0", "* 0.5"))
    run(folder, out)
    third = figures(out)
    changed(second, third)
    assert third["full"][1] == pytest.approx(second["full"][1] / 2)

    yaml = folder / "writes.yaml"
    yaml.write_text(yaml.read_text().replace("(.*)", "(.{0,2})"))
    run(folder, out)
    changed(third, figures(out))
    before = (out / "records.jsonl").read_bytes()
    assert "scored anew" not in run(folder, out)  # and once is enough
    assert (out / "records.jsonl").read_bytes() == before


def test_weighed_answers_are_scored_again_from_their_likelihoods(run, tmp_path):
    folder, out = lay(tmp_path / "tasks"), tmp_path / "out"
    run(folder, out, "--prompt", "routed", task="weighs")
    first = figures(out)
    (folder / "scoring.py").write_text(SCORING.replace("== doc", "!= doc"))
    assert "scored anew" in run(folder, out, "--prompt", "routed", task="weighs")
    second = figures(out)
    for name in first:
        assert second[name][2] == {id_: 1 - score for id_, score in first[name][2].items()}
        assert second[name][3] == first[name][3]
    for name in first:  # as files were before likelihoods were kept
        path = out / "samples" / f"{first[name][0]}.jsonl"
        old = [s.model_copy(update={"answers": (), "score": 0.5}) for s in read_lines(path, Sample)]
        path.write_text("".join(format_line(s) + "\n" for s in old))
    run(folder, out, "--prompt", "routed", task="weighs")
    assert figures(out) == second  # weighed again
    assert all(s.answers for s in read_lines(out / "samples" / f"{first['full'][0]}.jsonl", Sample))


def test_documents_beyond_the_limit_are_scored_when_they_are_wanted(run, tmp_path):
    folder, out = lay(tmp_path / "tasks"), tmp_path / "out"
    run(folder, out)
    whole = figures(out)["full"]
    (folder / "scoring.py").write_text(SCORING.replace("* 1.0", "* 0.5"))
    run(folder, out, "--limit", "4")
    assert figures(out)["full"][0] == whole[0]
    (record,) = (r for r in read_lines(out / "records.jsonl", Record) if r.method.name == "full")
    assert record.task.n == 4
    run(folder, out)
    assert figures(out)["full"][1] == pytest.approx(whole[1] / 2)
    assert figures(out)["full"][2] == pytest.approx({id_: score / 2 for id_, score in whole[2].items()})


def test_an_oracle_chooses_by_the_new_scores(run, tmp_path):
    folder, out = lay(tmp_path / "tasks"), tmp_path / "out"
    run(folder, out, methods=("oracle",))
    (folder / "scoring_share.py").write_text(SHARE.replace("aeiou", "etnrs"))
    run(folder, out, methods=("oracle",))
    fresh = tmp_path / "fresh"
    run(folder, fresh, methods=("oracle",))
    assert figures(out) == figures(fresh)
    tables = []
    for place in (out, fresh):
        paths = sorted(place.glob("samples/*.candidates.jsonl"))
        tables.append([list(read_lines(path, CandidateScore)) for path in paths])
    assert tables[0] == tables[1] != []


def test_what_was_decoded_now_is_not_scored_twice(tmp_path, monkeypatch):
    folder = lay(tmp_path / "tasks")
    monkeypatch.syspath_prepend(folder)
    task = loader.load_task(str(folder / "writes.yaml"))
    documents = task.documents("test")
    store = Store(tmp_path / "out")
    store.open({})
    keys = ["0" * 32, "1" * 32]
    store.append(keys[0], 0, [sample(d.id, 0.9, output="stale") for d in documents[:3]])
    store = Store(tmp_path / "out")
    for key in keys:
        store.samples(key)
        known = store.samples(key)
        store.append(key, 0, [sample(d.id, 0.9, output="now") for d in documents if d.id not in known])
        store.merge(key, [d.id for d in documents])
    asked = []
    score = task.score
    monkeypatch.setattr(task, "score", lambda d, output: asked.append((d.id, output)) or score(d, output))
    assert rescore(task, documents, store, keys) == 3
    assert asked == [(d.id, "stale") for d in documents[:3] for _ in range(2)]  # a change is looked at twice
    fresh = Store(tmp_path / "out").samples(keys[0])
    assert list(fresh) == [d.id for d in documents]
    assert [fresh[d.id].score for d in documents] == [0.2] * 3 + [0.9] * (len(documents) - 3)  # 2 of 5 letters, halved
    assert rescore(task, documents, Store(tmp_path / "out"), keys[:1]) == len(documents) - 3


def test_memory_does_not_grow_with_the_outputs_of_the_keys(tmp_path, monkeypatch):
    folder = lay(tmp_path / "tasks")
    monkeypatch.syspath_prepend(folder)
    task = loader.load_task(str(folder / "writes.yaml"))
    documents, store = task.documents("test"), Store(tmp_path / "out")
    monkeypatch.setattr(task, "score", lambda d, output: {"letters": 0.5})
    store.open({})
    keys = [f"{number:032x}" for number in range(16)]
    for key in keys:
        store.append(key, 0, [sample(d.id, output=f"{key} {d.id} " + "x" * 50_000) for d in documents])
        store.merge(key, [d.id for d in documents])
    held, store = [], Store(tmp_path / "out")
    tracemalloc.start()
    try:
        rescore(task, documents, store, keys, lambda done, total: held.append(tracemalloc.get_traced_memory()[0]))
    finally:
        tracemalloc.stop()
    assert held[15] - held[3] < 12 * COUNT * 2_000  # of 12 keys, of which 7 MB were read


def test_a_scoring_that_fails_is_one_line(tmp_path, monkeypatch):
    folder = lay(tmp_path / "tasks")
    (folder / "scoring_share.py").write_text("def share(text):\n    return missing\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "scoring_share", raising=False)
    task = loader.load_task(str(folder / "writes.yaml"))
    with pytest.raises(DlbenchError, match=r"its scoring fails: NameError: .* \(.*scoring_share\.py, line 2\)"):
        task.score(task.documents("test")[0], "text")


CHANCE = """
import random

import numpy as np

rng = random.Random(5)

def share(text):
    return DRAW
"""


@pytest.mark.parametrize("draw", ["random.random()", "float(np.random.rand())", "rng.randrange(2)"])
def test_scores_that_are_drawn_are_no_changes(tmp_path, monkeypatch, draw):
    """By the generators that everybody shares they are drawn alike; one's own is seen to give what was kept."""
    folder = lay(tmp_path / "tasks")
    (folder / "scoring_share.py").write_text(CHANCE.replace("DRAW", draw))
    monkeypatch.syspath_prepend(folder)
    for name in ("scoring_share", str(folder / "scoring")):
        monkeypatch.delitem(sys.modules, name, raising=False)
    task = loader.load_task(str(folder / "writes.yaml"))
    documents = task.documents("test")
    scores = [[task.score(d, f"text {d.index}")["letters"] for d in documents] for _ in range(2)]
    assert len({*scores[0]}) > 1
    if "rng" not in draw:
        assert scores[0] == scores[1]
    store = Store(tmp_path / "out")
    store.open({})
    store.append(
        "0" * 32, 0, [sample(d.id, s, output=f"text {d.index}") for d, s in zip(documents, scores[0], strict=True)]
    )
    store.merge("0" * 32, [d.id for d in documents])
    changed = rescore(task, documents, Store(tmp_path / "out"), ["0" * 32])
    assert changed < COUNT if "rng" in draw else changed == 0
