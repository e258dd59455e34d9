"""lm-eval's own command line with dlbench's model: the figures of its `hf` model, and those of `dlbench run`."""

import functools
import importlib
import json
import tomllib
from pathlib import Path

import pytest
from lm_eval_tasks import write_tasks

from dlbench.cli import main
from dlbench.models.loading import embedded_folder
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record

LIMIT = 6
HF = ("hf", f"pretrained={embedded_folder('nano')},dtype=float32")


@pytest.fixture(scope="module", autouse=True)
def quicker():
    """Without lm-eval's index of its tasks, fourteen thousand files, and its bootstrap of perplexities."""
    import lm_eval.api.metrics
    import lm_eval.tasks

    with pytest.MonkeyPatch.context() as patch:
        own = functools.partial(lm_eval.tasks.TaskManager, include_defaults=False)
        patch.setattr(lm_eval.tasks, "TaskManager", own)
        patch.setattr(lm_eval.api.metrics, "bootstrap_stderr", lambda f, xs, iters: 0.0)
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("tasks"))


def lm_eval(out, tasks, model, args, *more):
    """Run lm-eval's command line, and return the results that it wrote."""
    line = ["lm-eval", "--model", model, "--model_args", args, "--device", "cpu", "--output_path", str(out)]
    line += ["--tasks", ",".join(map(str, tasks)), "--limit", str(LIMIT), *more]
    assert main(line) == 0
    (path,) = out.rglob("results_*.json")
    return json.loads(path.read_text())


def figures(found):
    """Everything that lm-eval measured, by task."""
    return {task: {k: v for k, v in of.items() if k != "alias"} for task, of in found["results"].items()}


@pytest.mark.slow
def test_full_depth_has_the_figures_of_hf_to_the_last_digit(tmp_path, tasks):
    theirs = lm_eval(tmp_path / "hf", tasks.values(), *HF)
    ours = lm_eval(tmp_path / "ours", tasks.values(), "dlbench", "pretrained=nano,dtype=float32")
    assert figures(ours) == figures(theirs)
    assert set(figures(ours)) == set(tasks) and figures(ours)["own_rolls"]["word_perplexity,none"] > 1
    said = ours["config"]["dlbench"]
    assert said["method"] == "full" and set(said["compute"]) == set(tasks)
    assert all(of["layer_share"] == 1 for of in said["compute"].values())
    assert said["compute"]["own_writes"]["flop_share_decode"] == 1


@pytest.mark.slow
def test_static_skip_has_the_figures_of_a_run(tmp_path, tasks, capsys):
    ours = lm_eval(
        tmp_path / "ours",
        [tasks["own_writes"], tasks["own_weighs"]],
        "dlbench",
        "pretrained=nano,method=static_skip,budget=0.5,prompt=routed,dtype=float32",
        "--batch_size",
        "4",
    )
    line = f"run --model nano --method static_skip --budget 0.5 --no-timing --limit first:{LIMIT} --prompt routed"
    chosen = [word for name in ("own_writes", "own_weighs") for word in ("--task", str(tasks[name]))]
    assert main([*line.split(), *chosen, "--out", str(tmp_path / "run")]) == 0
    assert f"of each task the first {LIMIT} of the documents; --limit all takes all" in capsys.readouterr().err
    records = read_lines(tmp_path / "run" / "records.jsonl", Record)
    rows = {r.task.name: r for r in records if r.method.name == "static_skip" and r.backbone.name == "nano"}
    for task, metric in (("own_writes", "chrf,stripped"), ("own_weighs", "acc,none")):
        row, compute = rows[task], ours["config"]["dlbench"]["compute"][task]
        assert row.quality.mean == ours["results"][task][metric]
        assert row.compute.layer_share == compute["layer_share"] == 0.5
        assert row.compute.flops.model_dump() == compute["flops"]
        assert row.compute.tokens.model_dump() == compute["tokens"]
    assert rows["own_writes"].compute.flop_share_decode == compute_of(ours, "own_writes")["flop_share_decode"]
    assert 0 < rows["own_weighs"].quality.mean < 1


def compute_of(found, task):
    return found["config"]["dlbench"]["compute"][task]


def test_lm_eval_finds_the_model_by_an_entry_point():
    """Releases after 0.4.13 read the group; older ones are told by `register`, of the same class."""
    from lm_eval.api.registry import get_model

    from dlbench.lm_eval_model import NAME, register

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["lm_eval.models"][NAME].partition(":")
    register()
    assert get_model(NAME) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("method=full", "name the model"),
        ("pretrained=nano,method=static_skipp", "did you mean static_skip"),
        ("pretrained=nano,method=static_skip,sharr=0.5", "unknown parameter 'sharr' of method 'static_skip'"),
        ("pretrained=nano,method=full,budget=0.5", "has no budget"),
        ("pretrained=nano,method=calm,budget=0.5", "add fit_task=TASK"),
        ("pretrained=nano,method=random_skip,budget=0.5", "per=token or per=sequence"),
        ("pretrained=nano,method=oracle", "no model"),
        ("pretrained=nano,budget=half", "a share of the layers"),
        ("pretrained=nano,method=static_skip,budget=1.5", "at most 1"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(tasks, capsys, args, said):
    line = ["lm-eval", "--model", "dlbench", "--model_args", args, "--tasks", str(tasks["own_weighs"])]
    assert main([*line, "--device", "cpu", "--limit", "1"]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("dlbench: ") and said in last


@pytest.mark.parametrize(
    ("task", "more", "said"),
    [
        ("own_writes", ["--gen_kwargs", "do_sample=True,temperature=0.7"], "decodes greedily"),
        ("own_writes", ["--gen_kwargs", "repetition_penalty=1.3"], "repetition_penalty"),
        ("own_weighs", [], "decides per token: it has no log-likelihoods"),
    ],
)
def test_a_request_that_the_method_has_no_answer_to_is_refused(tasks, capsys, task, more, said):
    args = "pretrained=nano,method=random_skip,per=token,share=0.5"
    line = ["lm-eval", "--model", "dlbench", "--model_args", args, "--tasks", str(tasks[task])]
    assert main([*line, "--device", "cpu", "--limit", "1", *more]) == 2
    assert "dlbench: " in (told := capsys.readouterr().err) and said in told


@pytest.mark.slow
def test_a_method_that_is_fitted_uses_the_fits_of_a_run(tmp_path, tasks):
    """The fit is made once, into the run's folder, and found there again."""
    args = f"pretrained=nano,method=calm,budget=0.4,dtype=float32,fit_task=nano_math,out={tmp_path / 'run'}"
    first = lm_eval(tmp_path / "a", [tasks["own_writes"]], "dlbench", args)
    made = {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "fits").rglob("fit.json")}
    again = lm_eval(tmp_path / "b", [tasks["own_writes"]], "dlbench", args)
    assert figures(first) == figures(again)
    assert len(made) == 1 and made == {p: p.stat().st_mtime_ns for p in (tmp_path / "run" / "fits").rglob("fit.json")}
    said = first["config"]["dlbench"]
    assert said["fit"]["task"] == "nano_math" and said["budget"] == 0.4
    assert 0 < compute_of(first, "own_writes")["layer_share"] < 1
