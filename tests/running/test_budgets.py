"""Budgets that fit a model: which numbers of layers a curve gives, and that a run chooses the same each time."""

import json
import shutil
import time

import pytest
import small_model
from hypothesis import given
from hypothesis import strategies as st

from dlbench.cli import main
from dlbench.data.loader import load_task
from dlbench.data.task import Task
from dlbench.evaluation.generation import QualityRun
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample
from dlbench.running.budgets import FIXED, ChosenBudgets, fewest, left_out, pick
from dlbench.system import stopping

DEPTH = 30


def layers(kept, depth=DEPTH):
    return [round(budget * depth, 2) for budget in pick(kept, depth)]


def test_the_curve_is_measured_closely_where_few_layers_are_left_out():
    assert left_out(30) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 29]
    assert left_out(4) == [1, 2, 3]
    assert left_out(2) == [1]
    assert left_out(1) == []


def test_budgets_lie_between_what_keeps_98_per_cent_and_what_keeps_a_third():
    bend = {30: 1.0, 29: 1.0, 28: 0.99, 26: 0.9, 22: 0.5, 18: 0.2, 6: 0.0, 1: 0.0}
    assert fewest(bend, 0.98) == 28  # 0.945 at 27, between 26 and 28
    assert fewest(bend, 1 / 3) == 20  # 0.35, between 18 and 22
    assert layers(bend) == [20, 22, 24, 26, 28]


def test_a_dent_in_the_curve_does_not_move_the_ends():
    dented = {30: 1.0, 28: 0.99, 26: 0.6, 24: 0.7, 22: 0.5, 18: 0.0, 1: 0.0}
    smooth = {**dented, 26: 0.65, 24: 0.65}
    assert layers(dented) == layers(smooth)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({30: 1.0, 29: 0.2, 28: 0.1, 1: 0.0}, [25, 26, 27, 28, 29]),  # one layer less, and all is lost
        ({30: 1.0, 29: 1.0, 28: 1.0, 1: 0.99}, [1, 2, 3, 4, 5]),  # one layer is enough
        ({30: 1.0, 29: 1.3, 1: 0.0}, [10, 14, 18, 21, 25]),  # less is more: the ends lie on the line up to their mean
        ({30: 1.0, 29: 0.99, 28: 0.3, 1: 0.0}, [25, 26, 27, 28, 29]),  # two layers apart: further ones below
    ],
)
def test_curves_of_all_kinds_have_five_budgets(kept, expected):
    assert layers(kept) == expected


@pytest.mark.parametrize(("depth", "count"), [(1, 0), (2, 1), (3, 2), (5, 4), (6, 5), (80, 5)])
def test_shallow_models_have_fewer(depth, count):
    kept = {depth: 1.0} | {depth - one: 1 - one / depth for one in left_out(depth)}
    assert len(pick(kept, depth)) == count


@given(st.integers(1, 200), st.data())
def test_whatever_the_curve_budgets_are_distinct_whole_layers_below_full_depth(depth, data):
    kept = {depth: 1.0}
    kept |= {depth - one: data.draw(st.floats(-0.5, 2)) for one in left_out(depth)}
    budgets = pick(kept, depth)
    counts = [round(budget * depth) for budget in budgets]
    assert counts == sorted(set(counts)) and len(counts) == min(5, depth - 1)
    assert all(1 <= count < depth for count in counts)
    assert all(budget == round(count / depth, 4) for budget, count in zip(budgets, counts, strict=True))


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ({30: 1.0, 28: 0.99, 18: 0.2, 1: 0.0}, " % of the layers, between a third and 98 % of full depth's quality: "
         "unified_skip keeps these with 20 and 28 of 30 layers, on fit documents (8 of t); "),
        ({30: 1.0, 29: 1.0, 28: 1.0, 1: 0.99}, ", around a third and 98 % of full depth's quality: unified_skip keeps "
         "these with 1 and 1 of 30 layers, "),
        ({30: 1.0, 29: 0.9, 18: 0.2, 1: 0.0}, ", up to all layers but one: unified_skip keeps a third of full depth's "
         "quality with 21 of 30 layers, and 98 % with all of them only, "),
        ({30: 1.0, 29: 0.2, 1: 0.0}, ": 83.33, 86.67, 90, 93.33, 96.67 % of the layers, the highest below all: without "
         "one layer unified_skip keeps less than a third of full depth's quality, "),
        ({}, ", the fixed ones: full depth scores nothing on 8 of t; "),
    ],
)  # fmt: skip
def test_the_run_says_what_its_budgets_are(kept, said):
    budgets = pick(kept, 30) if kept else FIXED
    assert said in ChosenBudgets("m", "0", 30, budgets, kept, {"t": 8}).line


def test_a_model_of_one_layer_has_no_budgets(tmp_path, capsys):
    model = small_model.save(tmp_path / "flat", num_hidden_layers=1)
    out = tmp_path / "out"
    line = f"run --model {model} --method static_skip --task nano_summary --limit 2 --no-timing --device cpu"
    assert main([*line.split(), "--processes", "1", "--out", str(out)]) == 0
    assert {one.method.name for one in read_lines(out / "records.jsonl", Record)} == {"full"}
    assert "no budgets for flat: its one layer cannot be left out; --budget 1 runs it" in capsys.readouterr().err


def command(out, *more):
    return ["run", "--method", "static_skip", "--method", "unified_skip", "--method", "static_exit", "--no-timing",
            "--task", "nano_summary", "--task", "nano_data2text", "--limit", "4", "--out", str(out), *more]  # fmt: skip


def budgets_of(out):
    (said,) = json.loads((out / "run.json").read_text())["budgets"]
    return said


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    out = tmp_path_factory.mktemp("auto") / "out"
    assert main(command(out, "--budget", "auto", "--processes", "1")) == 0
    return out


def test_one_set_of_budgets_serves_all_tasks_and_run_json_says_how_it_came(chosen):
    said = budgets_of(chosen)
    assert said["budgets"] == list(pick({int(n): share for n, share in said["kept"].items()}, said["layers"]))
    assert said["documents"] == {"nano_summary": 8, "nano_data2text": 8}
    found = [record for record in read_lines(chosen / "records.jsonl", Record) if record.method.name == "static_skip"]
    for task in said["documents"]:
        assert sorted(one.run.budget for one in found if one.task.name == task) == said["budgets"]


def test_what_budgets_are_chosen_by_is_never_scored(chosen):
    samples = [one for path in (chosen / "tune" / "samples").glob("*.jsonl") for one in read_lines(path, Sample)]
    tasks = [load_task(name) for name in ("nano_summary", "nano_data2text")]
    assert samples and {one.id for one in samples} <= {d.id for task in tasks for d in task.documents("fit")}
    assert not {one.id for one in samples} & {d.id for task in tasks for d in task.documents("test")}


def test_members_of_a_class_are_scored_there_too_and_others_are_not(chosen):
    for record in read_lines(chosen / "records.jsonl", Record):
        assert (record.tune is not None) == (record.method.name in ("static_skip", "unified_skip"))
        assert record.tune is None or record.tune.n == 8


def test_a_run_that_is_started_again_chooses_the_same_and_decodes_nothing(chosen, monkeypatch):
    before = budgets_of(chosen)
    monkeypatch.setattr(QualityRun, "_decode_batch", lambda *args: pytest.fail("decodes again"))
    assert main(command(chosen, "--budget", "auto", "--processes", "1")) == 0
    assert budgets_of(chosen) == before


def test_a_task_whose_scoring_has_changed_scores_them_anew(chosen, tmp_path, monkeypatch):
    out = shutil.copytree(chosen, tmp_path / "out")
    monkeypatch.setattr(QualityRun, "_decode_batch", lambda *args: pytest.fail("decodes again"))
    monkeypatch.setattr(Task, "score", lambda self, document, output: {self.metric: 0.25})
    assert main(command(out, "--budget", "0.5", "--processes", "1")) == 0
    tuned = [one.tune.mean for one in read_lines(out / "records.jsonl", Record) if one.tune is not None]
    assert tuned and set(tuned) == {0.25}


def test_a_time_limit_ends_the_choice_too(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_BEGUN", time.monotonic() - 100)
    assert main(command(tmp_path / "out", "--budget", "auto", "--processes", "1", "--time-limit", "60s")) == 143
    assert not list((tmp_path / "out").rglob("*.part")) + list((tmp_path / "out").rglob("samples/*.jsonl"))


def test_two_processes_choose_what_one_does(chosen, tmp_path):
    assert main(command(tmp_path / "out", "--budget", "auto", "--processes", "2")) == 0
    assert budgets_of(tmp_path / "out") == budgets_of(chosen)
    tuned = [
        {(one.track, one.method.name, one.run.budget): one.tune for one in read_lines(out / "records.jsonl", Record)}
        for out in (chosen, tmp_path / "out")
    ]
    assert tuned[0] == tuned[1]


def test_what_is_given_is_taken_and_nano_keeps_its_own(tmp_path, capsys):
    for more, expected in ((["--budget", "0.5"], [0.5]), ([], list(FIXED))):
        out = tmp_path / str(len(more))
        assert main(command(out, "--limit", "1", "--task", "nano_summary", *more)) == 0
        assert "budgets" not in json.loads((out / "run.json").read_text())
        found = {one.run.budget for one in read_lines(out / "records.jsonl", Record)} - {None}
        assert sorted(found) == expected
    assert "budgets of" not in capsys.readouterr().err


def test_a_model_whose_quality_says_nothing_has_the_fixed_ones(tmp_path, capsys):
    """A random model answers no word problem."""
    model = small_model.save(tmp_path / "tiny")
    run = ["run", "--model", str(model), "--task", "nano_math", "--method", "static_exit", "--limit", "1"]
    assert main([*run, "--no-timing", "--max-new-tokens", "4", "--out", str(tmp_path / "out")]) == 0
    assert budgets_of(tmp_path / "out")["budgets"] == list(FIXED)
    assert "full depth scores nothing on 8 of nano_math" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("words", "said"), [(["auto", "0.5"], "give it alone"), (["half"], "or `auto`"), (["1.5"], "above 0")]
)
def test_wrong_budgets_are_refused_in_one_line(words, said, capsys):
    given = [word for one in words for word in ("--budget", one)]
    assert main(["run", *given]) == 2
    assert said in capsys.readouterr().err
