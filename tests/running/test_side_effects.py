"""Methods that reach beyond their answers in an ordinary run: weights, global state, and the end of the process."""

import small_model
import torch

from dlbench.cli import main
from dlbench.models.checkpoint.checksum import WeightsGuard
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Sample, Timing

PLUGIN = '''
import os
import random
import sys
from dataclasses import dataclass
from typing import ClassVar

import torch

from dlbench.method import Method


@dataclass
class Reaches(Method):
    """Do more than answer."""

    fitted: ClassVar[bool] = True

    def fit(self, probe):
        FIT

    @property
    def learns(self):
        LEARNS
        return True

    def route(self, view):
        ROUTE
        return view.layer != 2
'''
HALVED = "with torch.no_grad(): next({}.model.parameters()).mul_(0.5)"
LEFT = "; ".join(
    [
        *("torch.set_default_dtype(torch.float64)", "torch.set_num_threads(3)"),
        *("os.environ['DLBENCH_LEFT'] = '1'", "torch.manual_seed(1)"),
    ]
)


def plugin(folder, name, *, fit="pass", learns="pass", route="pass"):
    text = PLUGIN
    for word, code in (("FIT", fit), ("LEARNS", learns), ("ROUTE", route)):
        text = text.replace(word, code)
    (folder / f"{name}.py").write_text(text)
    return str(folder / f"{name}.py")


def command(folder, *methods, to="out"):
    line = ["run", "--model", str(folder / "model"), "--task", "nano_summary", "--limit", "2", "--max-new-tokens", "6"]
    line += [word for method in methods for word in ("--method", method)]
    return [*line, "--budget", "0.5", "--no-timing", "--processes", "1", "--quiet", "--out", str(folder / to)]


def outputs(folder, method):
    (key,) = [r.key for r in read_lines(folder / "records.jsonl", Record) if r.method.name == method]
    return [s.output for s in read_lines(folder / "samples" / f"{key}.jsonl", Sample)]


def test_changed_weights_spoil_nothing(tmp_path, capsys):
    """The run ends with the method's name; a run without it goes on with what is full depth's."""
    small_model.save(tmp_path / "model")
    assert main(command(tmp_path, "full", to="honest")) == 0
    in_route = plugin(tmp_path, "in_route", route=HALVED.format("view.backbone"))
    in_fit = plugin(tmp_path, "in_fit", fit=HALVED.format("probe.backbone") + "; raise ValueError('no matter')")
    for method, doing in ((in_fit, "while it was fitted"), (in_route, "while it decoded")):
        assert main(command(tmp_path, method, "static_skip")) == 2
        said = capsys.readouterr().err
        name = "in_fit" if method == in_fit else "in_route"
        assert f"method '{name}' changed weights of model" in said and doing in said
        assert "model.embed_tokens.weight" in said or "lm_head.weight" in said
        samples = list((tmp_path / "out" / "samples").iterdir())
        assert len(samples) == (0 if method == in_fit else 1)  # full depth's, which came before
    assert main(command(tmp_path, "full")) == 0
    assert outputs(tmp_path / "out", "full") == outputs(tmp_path / "honest", "full")


def test_what_a_method_leaves_is_put_back_and_an_exit_is_its_failure(tmp_path, capsys, monkeypatch):
    small_model.save(tmp_path / "model")
    monkeypatch.delenv("DLBENCH_LEFT", raising=False)
    leaves = plugin(tmp_path, "leaves", route=LEFT)
    exits = plugin(tmp_path, "exits", learns="sys.exit(0)")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    arguments = [word for word in command(tmp_path, leaves, exits) if word != "--quiet"]
    assert main(arguments) == 3
    said = " ".join(capsys.readouterr().err.split())
    changed = "torch's default dtype, torch's number of threads, environment variables"
    assert said.count(f"method 'leaves' changed {changed} while it decoded: put back") == 1
    assert "method 'exits': SystemExit: 0" in said and f"{tmp_path}/exits.py, line " in said
    assert torch.get_default_dtype() == torch.float32 and torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert {r.method.name for r in read_lines(tmp_path / "out" / "records.jsonl", Record)} == {"full", "leaves"}


def test_a_method_that_prints_is_timed_all_the_same(tmp_path):
    small_model.save(tmp_path / "model")
    talks = plugin(tmp_path, "talks", route="print('layer', view.layer)")
    assert main([word for word in command(tmp_path, talks) if word != "--no-timing"]) == 0
    keys = {r.key for r in read_lines(tmp_path / "out" / "records.jsonl", Record)}
    assert {t.key for t in read_lines(tmp_path / "out" / "timing.jsonl", Timing)} == keys and len(keys) == 2


def test_every_word_counts():
    """Values that trade places, one bit, a new shape, and weights that are not a whole number of words."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3, dtype=torch.float16), torch.nn.Linear(5, 1))
    guard, weight = WeightsGuard(model), model[0].weight.data
    assert guard.changed() is None
    for change in (lambda: weight.copy_(weight.flip(0)), lambda: weight[2, 2].neg_(), lambda: weight[0, 0].add_(1)):
        before = weight.clone()
        change()
        assert guard.changed() == "0.weight"
        weight.copy_(before)
        assert guard.changed() is None
    model[1].bias.data[0] += 1
    assert guard.changed() == "1.bias"
    model[1].bias = torch.nn.Parameter(torch.zeros(2))
    assert guard.changed() == "1.bias"
