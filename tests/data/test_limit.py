"""`--limit N` takes a sample of the documents that nests and is the same for everybody; `first:N` takes the first."""

import dataclasses
import json

import pytest
import small_model

from dlbench.api.asked import limited
from dlbench.data import loader
from dlbench.data.splits import sample
from dlbench.errors import DlbenchError
from dlbench.evaluation.record import _drawn
from dlbench.evaluation.settings import Conditions, Setting, full
from dlbench.running.config import RunSpec
from dlbench.running.planner import Planner
from dlbench.terminal.progress import Progress

IDS = [f"d{i}" for i in range(500)]


def test_a_sample_holds_every_smaller_one_in_the_tasks_order():
    for small, large in ((1, 32), (32, 100), (100, 499), (499, 500)):
        few, many = sample(IDS, small), sample(IDS, large)
        assert len(few) == small and len(many) == large
        assert {*few} < {*many} and many == sorted(many)
    assert sample(IDS, 500) == sample(IDS, 9999) == list(range(500))


def test_a_sample_is_spread_over_the_whole():
    """Of 500 places the mean of a hundred is 249.5, give or take 13."""
    found = sample(IDS, 100)
    assert abs(sum(found) / 100 - 249.5) < 4 * 13
    assert [sum(100 * part <= place < 100 * (part + 1) for place in found) > 8 for part in range(5)] == [True] * 5


def test_what_is_not_sampled_decides_nothing():
    chosen = [IDS[place] for place in sample(IDS, 40)]
    rest = [one for one in IDS if one not in chosen][::3]
    fewer = sorted({*chosen, *rest}, reverse=True)
    assert {fewer[place] for place in sample(fewer, 40)} == {*chosen}


@pytest.mark.parametrize(
    ("text", "meant"), [("32", (32, False)), ("first:7", (7, True)), ("all", (None, False)), ("-3", (-3, False))]
)
def test_a_limit_is_read(text, meant):
    assert limited(text) == meant


@pytest.mark.parametrize("text", ["some", "first:", "first:all", "first:x", "last:3", "3 first:2"])
def test_another_limit_is_one_line(text):
    with pytest.raises(DlbenchError) as error:
        limited(text)
    assert str(error.value) == f"limit {text!r}: give a number, or `all`, or `first:N` for the first ones"


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A task of sixty documents with two examples in each prompt, drawn from the documents themselves."""
    folder = tmp_path_factory.mktemp("task")
    small_model.save(folder / "small")
    rows = [{"q": f"number {i}", "a": f"r{i}"} for i in range(60)]
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "own.yaml").write_text(
        f"""
task: own
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{folder}/test.jsonl"}}}}
test_split: test
fewshot_split: test
num_fewshot: 2
output_type: generate_until
doc_to_text: "Q: {{{{q}}}} A:"
doc_to_target: "{{{{a}}}}"
generation_kwargs: {{until: ["."], max_gen_toks: 2}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
    )
    return folder


def asked(task, **more):
    return RunSpec((str(task / "small"),), (str(task / "own.yaml"),), ("full",), **more)


def planned(task, **more):
    """The job of a run, as the processes of it make it."""
    (job,) = Planner(asked(task, **more), "cpu", Progress(shown=False), 1, lambda word: word).load()
    return job


def test_a_run_takes_a_sample_whatever_its_seed(task):
    whole = planned(task, limit=None).documents
    few, many, seeded = (planned(task, **more) for more in ({"limit": 5}, {"limit": 20}, {"limit": 5, "seed": 9}))
    assert len(whole) == 48 and len(few.documents) == 5  # a fifth is fitted on
    assert few.documents == seeded.documents == [d for d in many.documents if d in few.documents]
    assert few.documents != whole[:5] and [d.index for d in many.documents] == sorted(d.index for d in many.documents)
    # Examples are drawn document after document: those of a sample are those of the whole.
    assert all(d in whole for d in many.documents) and few.documents[0].prompt.count("Q: ") == 3
    setting = Setting("full", "full", full(), None)  # what was decoded for one is there for the other
    assert few.conditions.track == many.conditions.track
    assert few.conditions.key(setting) == many.conditions.key(setting)


def test_the_first_ones_are_taken_where_that_is_asked(task):
    whole, first = planned(task, limit=None), planned(task, limit=5, limit_first=True)
    spec = asked(task, limit=5, limit_first=True)
    kept = json.loads(json.dumps(dataclasses.asdict(spec), default=str))  # run.json, and other processes
    assert (kept["limit"], kept["limit_first"]) == (5, True)
    assert first.conditions.limit_first and not whole.conditions.limit_first
    assert first.documents == whole.documents[:5] == loader.load_task(str(task / "own.yaml")).documents("test", 5)


def test_a_record_says_what_was_taken(task):
    def said(documents, **more):
        conditions: Conditions = planned(task, **more).conditions
        assert conditions.of == 48
        return _drawn(conditions, documents)

    assert said(5, limit=5) == "sample"
    assert said(5, limit=5, limit_first=True) == "first"
    assert said(48, limit=None) == said(48, limit=100) == said(48, limit=48, limit_first=True) == "all"
