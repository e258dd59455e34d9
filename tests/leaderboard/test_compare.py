import io
import json

import numpy as np
import pytest
from record_factory import record, synthetic_run
from rich.console import Console

from dlbench import cli
from dlbench.errors import DlbenchError
from dlbench.leaderboard.analysis.compare import compare
from dlbench.leaderboard.terminal.compare_report import report
from dlbench.records.schema import Sample, Scores, write_lines
from dlbench.stats import Outcomes, paired_difference, permutation_p

RNG = np.random.default_rng(0)
BASE = np.clip(RNG.normal(0.6, 0.1, 80), 0, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run with samples."""
    return synthetic_run(documents=40).write(tmp_path_factory.mktemp("run"))


def published(folder, *rows):
    """Write records and scores of (name, task, budget, scores, changes) rows."""
    records, scores = [], []
    for name, task, budget, values, changes in rows:
        made = record(name, task=task, scores=values, full=BASE[: len(values)], run={"budget": budget}, **changes)
        records.append(made)
        scores.append(Scores(key=made.key, scores={f"{task}/{place:03}": v for place, v in enumerate(values.tolist())}))
    write_lines(folder / "records.jsonl", records)
    write_lines(folder / "scores.jsonl", scores)
    return folder


def printed(found, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(report(found, "title", width))
    return console.file.getvalue()


def test_figures_are_those_of_the_statistics(tmp_path):
    better = np.clip(BASE + RNG.normal(0.08, 0.05, 80), 0, 1)
    (found,) = compare(
        published(tmp_path, ("static_skip", "t", 0.5, better, {}), ("static_exit", "t", 0.5, BASE, {})),
        "static_skip",
        "static_exit",
    )
    assert found.difference == paired_difference(better, BASE)
    assert found.p == found.corrected == permutation_p(better, BASE)
    assert found.documents == Outcomes(
        int((better > BASE).sum()), int((better < BASE).sum()), int((better == BASE).sum())
    )
    assert (found.a.mean, found.b.mean, found.n) == (pytest.approx(better.mean()), pytest.approx(BASE.mean()), 80)
    assert (found.a.layers, found.a.total, found.a.budget) == (0.5, 0.7, 0.5)
    assert found.verdict == 1
    worst = int(np.argmin(better - BASE))
    assert [flip.id for flip in found.flips][2] == f"t/{worst:03}"
    assert found.flips[0].a - found.flips[0].b == pytest.approx((better - BASE).max())
    assert found.flips[0].a_output is None


def test_p_values_are_corrected_over_the_tasks(tmp_path):
    slightly = BASE + np.where(np.arange(80) < 40, 0.05, -0.025)
    rows = []
    for place in range(4):
        rows += [
            ("static_skip", f"t{place}", 0.5, slightly if place == 0 else BASE, {}),
            ("static_exit", f"t{place}", 0.5, BASE, {}),
        ]
    first, second, *_ = compare(published(tmp_path, *rows), "static_skip", "static_exit")
    assert first.corrected == pytest.approx(4 * first.p)
    assert (second.p, second.corrected, second.verdict, second.detectable, second.flips) == (1, 1, 0, None, ())


def test_the_budget_is_the_one_asked_for_or_nearest_to_a_half(run):
    def budgets(*labels, at=None):
        return {(one.a.budget, one.b.budget) for one in compare(run, *labels, at=at)}

    assert budgets("static_skip", "static_exit") == {(0.5, 0.5)}
    assert budgets("static_skip", "static_exit", at=0.75) == {(0.75, 0.75)}
    assert budgets("static_skip", "full") == {(0.5, None)}
    assert budgets("nano-half", "full") == {(None, None)}
    assert budgets("oracle@full", "static_skip", at=0.25) == {(1.0, 0.25)}


def test_only_tasks_that_have_both(run):
    assert [one.task for one in compare(run, "oracle_cross", "oracle")] == ["nano_d2t"]
    assert len(compare(run, "static_skip", "oracle")) == 4
    assert [one.task for one in compare(run, "static_skip", "oracle", task="nano_math")] == ["nano_math"]


def test_fit_seeds_are_put_together(tmp_path):
    seeds = [
        ("hidden_router", "t", 0.5, BASE + off, {"run": {"budget": 0.5, "seed": seed}})
        for seed, off in enumerate((-0.02, 0.0, 0.05))
    ]
    records, scores = [], []
    for name, task, _, values, changes in [*seeds, ("full", "t", None, BASE, {"run": {"budget": None}})]:
        made = record(name, task=task, scores=values, **changes)
        records.append(made)
        scores.append(Scores(key=made.key, scores={str(place): v for place, v in enumerate(values.tolist())}))
    write_lines(tmp_path / "records.jsonl", records)
    write_lines(tmp_path / "scores.jsonl", scores)
    (found,) = compare(tmp_path, "hidden_router", "full")
    assert (found.a.seeds, found.b.seeds) == (3, 1)
    assert found.difference.estimate == pytest.approx(0.01)
    assert found.difference.method.endswith("3 fit seeds")


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (("static_skp", "full"), {}, "unknown row 'static_skp': did you mean static_skip"),
        (("static_skip", "full"), {"task": "nano_maths"}, "unknown task 'nano_maths': did you mean nano_math"),
        (("static_skip", "static_exit"), {"at": 0.6}, "can be compared at 0.25, 0.5, 0.75"),
        (("full", "full"), {}, "name two rows"),
    ],
)
def test_what_is_not_there_is_said(run, labels, options, said):
    with pytest.raises(DlbenchError, match=said.replace("?", r"\?")):
        compare(run, *labels, **options)


def test_other_documents_are_refused_in_one_line(tmp_path, capsys):
    folder = published(tmp_path, ("static_skip", "t", 0.5, BASE[:30], {}), ("static_exit", "t", 0.5, BASE, {}))
    assert cli.main(["compare", str(folder), "static_skip", "static_exit"]) == 2
    said = capsys.readouterr().err.strip()
    assert "not scored on the same documents of t in" in said
    assert said.endswith("30 documents and 80 documents; run both with one --limit")
    assert len(said.splitlines()) == 1


def test_missing_scores_are_told(tmp_path):
    folder = published(tmp_path, ("static_skip", "t", 0.5, BASE, {}), ("static_exit", "t", 0.5, BASE - 0.1, {}))
    (folder / "scores.jsonl").unlink()
    with pytest.raises(DlbenchError, match="no scores of static_skip on t"):
        compare(folder, "static_skip", "static_exit")


@pytest.mark.parametrize("width", [80, 120])
def test_report_fits_the_terminal(run, width):
    text = printed(compare(run, "hidden_router", "calm", at=0.25), width)
    assert max(map(len, text.splitlines())) <= width
    for word in (
        "nano_translate",
        "95 % interval",
        "won",
        "corrected",
        "detectable",
        "† ",
        "unreachable",
        "differ most",
    ):
        assert word in text
    assert "None" not in text and "nan" not in text.replace("nano", "")


def test_examples_show_where_the_outputs_part(tmp_path):
    def sample(output, score):
        return Sample(
            id="one",
            output=output,
            score=score,
            layers=(1.0,),
            truncated=False,
            tokens={"prompt": 1, "generated": 2},
            flops={"layers": 1, "attention": 0, "heads": 0, "kv": 0, "router": 0},
            prompt_flops=1,
            executed_flops=1,
        )

    hostile = "[red]the \x1b[31mhouse\u202e stands [/red]" + "by the river " * 20
    rows = [record("static_skip", scores=np.ones(1)), record("static_exit", scores=np.zeros(1))]
    write_lines(tmp_path / "records.jsonl", rows)
    for made, output, score in zip(rows, (hostile + "now", hostile + "then \n and then"), (1.0, 0.0), strict=True):
        write_lines(tmp_path / "samples" / f"{made.key}.jsonl", [sample(output, score)])
    text = printed(compare(tmp_path, "static_skip", "static_exit"), 80)
    assert "…" in text and "river now" in text and "river then and then" in text
    assert "\x1b" not in text and "\u202e" not in text
    short = printed(compare(tmp_path, "static_skip", "static_exit", examples=0), 80)
    assert "differ most" not in short


@pytest.mark.parametrize("sign", [" · ", "-", ":", " : "])
def test_the_dot_of_a_label_may_be_typed_otherwise(tmp_path, sign):
    token, sequence = ({"method": {"params": {"per": per}}} for per in ("token", "sequence"))
    rows = [("random_skip", "t", 0.5, BASE, token), ("random_skip", "t", 0.5, BASE * 0.9, sequence)]
    (found,) = compare(published(tmp_path, *rows), f"random_skip{sign}token", "random_skip-sequence")
    assert (found.a.label, found.b.label) == ("random_skip · token", "random_skip · sequence")


def test_json_has_everything(run, capsys):
    assert cli.main(["compare", str(run), "static_skip", "full", "--json", "--task", "nano_math"]) == 0
    told = json.loads(capsys.readouterr().out)
    (task,) = told["tasks"]
    assert (told["a"], task["task"], task["n"]) == ("static_skip", "nano_math", 40)
    assert set(task["difference"]) == {"estimate", "low", "high", "method"}
    assert task["documents"]["won"] + task["documents"]["lost"] + task["documents"]["tied"] == 40
    assert task["flips"][0]["a_output"].startswith(" The")


def test_command_prints_the_report(run, capsys):
    assert cli.main(["compare", str(run), "static_skip", "full"]) == 0
    assert "A static_skip · B full · budget 50 % of the layers" in capsys.readouterr().out
