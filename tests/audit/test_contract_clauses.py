"""Methods that break the contract: each fault is found by its clause, and said with the line of the file."""

import re
import sys

import pytest

from dlbench.audit import report
from dlbench.audit.method_calls import closed_form
from dlbench.audit.method_case import Bench
from dlbench.errors import MethodError
from dlbench.registry import methods as registry

HEAD = """\
from dataclasses import dataclass, replace
from typing import ClassVar
import torch
from dlbench.method import Action, Exit, Knob, Method, Route, Router, Static
"""
EVEN = "        return view.layer % 2 == 0 or view.layer == view.depth - 1\n"
ROUTE = f"    def route(self, view):\n{EVEN}"
DOC = '    """Do something."""\n'


def method(body, base="Method"):
    return f"{HEAD}@dataclass\nclass Mine({base}):\n{DOC}{body}"


BROKEN = {
    "no docstring": (f"{HEAD}@dataclass\nclass Mine(Method):\n{ROUTE}", "described", "the class has no docstring", 6),
    "at changes self": (
        method(
            f"    share: float = 1.0\n{ROUTE}    def at(self, budget, depth):\n"
            "        self.share = budget\n        return self\n"
        ),
        "closed form",
        r"at\(\) changes self.*return dataclasses.replace\(self, …\)",
        11,
    ),
    "at gives a number": (
        method(f"{ROUTE}    def at(self, budget, depth):\n        return budget\n"),
        "closed form",
        r"at\(\) gave 0.25; return a method of the same class",
        10,
    ),
    "an unknown scope": (
        method(f"{ROUTE}    @property\n    def scope(self):\n        return 'rows'\n"),
        "declared",
        "scope 'rows' is none of static, sequence, token",
        11,
    ),
    "a wrong code": (
        method("    def route(self, view):\n        return 7\n"),
        "answers",
        "answered 7; an action is SKIP",
        8,
    ),
    "a NaN at at_least": (
        method(
            "    def route(self, view):\n        score = view.hidden.mean(-1) * 0 / 0\n"
            "        return view.at_least(score, 0.0)\n"
        ),
        "answers",
        "not a number.*look for a division by zero",
        10,
    ),
    "a NaN compared by itself": (
        method("    def route(self, view):\n        score = view.hidden.mean(-1) * 0 / 0\n        return score > 0\n"),
        "answers",
        r"a score that is compared is not a number \(NaN\)",
        10,
    ),
    "an own head of the wrong width": (
        method(
            "    def head(self, layer):\n        torch.manual_seed(0)\n        return torch.nn.Linear(32, 60)\n"
            "    def route(self, view):\n        return view.at_least(view.logits().max(-1).values, -9.0)\n"
        ),
        "answers",
        r"logits of shape \(6, 60\); one per token of the vocabulary is wanted: \(6, 61\)",
        12,
    ),
    "an exception": (
        method("    def route(self, view):\n        return self.layers[view.layer]\n"),
        "answers",
        "Mine failed before layer 0 at step 0: AttributeError: 'Mine' object has no attribute 'layers'",
        9,
    ),
    "an exit": (
        method("    def route(self, view):\n        raise SystemExit(0)\n"),
        "answers",
        "Mine failed before layer 0 at step 0: SystemExit: 0",
        9,
    ),
    "a bypass of the wrong width": (
        method(
            "    def bypass(self, layer):\n        return torch.nn.Linear(31, 32)\n"
            "    def route(self, view):\n        return view.layer == 0\n"
        ),
        "answers",
        r"failed in the module of bypass\(1\): RuntimeError: mat1 and mat2",
        8,
    ),
    "state on self": (
        method(
            "    count: int = 0\n    def route(self, view):\n        self.count += 1\n        return view.layer != 2\n"
        ),
        "state",
        "decoding changes count; keep what a text needs in its memory",
        9,
    ),
    "a fit that is lost": (
        method(
            "    fitted: ClassVar[bool] = True\n    def fit(self, probe):\n        vars(self)['kept'] = 2\n"
            "    def route(self, view):\n        return view.layer < getattr(self, 'kept', 5)\n"
        ),
        "fit",
        r"fit\(\) sets kept, which is no field and lost",
        9,
    ),
    "a fit that weights do not hold": (
        method(
            "    fitted: ClassVar[bool] = True\n    def fit(self, probe):\n        self.kept = 2\n"
            "    def weights(self):\n        return {'a': torch.ones(1)}\n    def load_weights(self, weights):\n"
            "        pass\n    def route(self, view):\n        return view.layer < getattr(self, 'kept', 5)\n"
        ),
        "reload",
        "loaded again from its parameters and weights",
        9,
    ),
    "noise of its own": (
        method("    def route(self, view):\n        return torch.rand(len(view.row)) < 0.5\n"),
        "repeats",
        r"run other layers; take noise from view.uniform\(\)",
        8,
    ),
    "neighbours": (
        method(
            "    def route(self, view):\n        mean = view.hidden.mean(-1)\n        return mean <= mean.median()\n"
        ),
        "neighbours",
        "decide for each row of the view by itself",
        8,
    ),
    "a knob the wrong way": (
        method(
            "    knob: ClassVar = Knob('share', 1.0, 0.0)\n    share: float = 0.5\n    def route(self, view):\n"
            "        return view.layer < self.share * view.depth\n"
        ),
        "knob",
        "the layer share does not rise with share: from 1.0 to 0.0",
        8,
    ),
}


@pytest.fixture(scope="module")
def bench():
    return Bench.tiny()


@pytest.fixture
def check(tmp_path, bench):
    def run(source):
        path = tmp_path / "mine.py"
        path.write_text(source)
        lines = []
        report.check([str(path)], bench, lines.append)
        return lines, path

    yield run
    sys.modules.pop("dlbench_plugin_mine", None)


@pytest.mark.parametrize(("source", "clause", "message", "line"), BROKEN.values(), ids=BROKEN)
def test_a_fault_is_found_by_its_clause(check, source, clause, message, line):
    lines, path = check(source)
    first = next(i for i, text in enumerate(lines) if text.lstrip().startswith("FAIL"))
    assert lines[first].startswith(f"  FAIL  {clause}: ")
    assert re.search(message, lines[first + 1]), lines[first + 1]
    assert f"{path}, line {line}" in lines[first + 1]


def test_a_good_method_keeps_every_clause(check):
    lines, _ = check(method(ROUTE))
    assert lines[0] == "mine" and "all 12 clauses hold" in lines[-1]
    assert not [line for line in lines if "FAIL" in line]


def test_what_does_not_load_is_a_line_of_the_report(check):
    lines, path = check("x = missing\n")
    assert len(lines) == 1 and "FAIL  loads: " in lines[0] and f"{path}, line 1: NameError" in lines[0]


def test_at_without_a_knob_gives_a_row_for_each_budget(tmp_path, bench):
    """It is asked, although there is nothing to tune."""
    path = tmp_path / "mine.py"
    path.write_text(
        method(
            f"    share: float = 1.0\n{ROUTE}    def at(self, budget, depth):\n"
            "        return replace(self, share=budget)\n"
        )
    )
    made = registry.load(str(path))()
    assert closed_form(made, 0.5, 6).share == 0.5
    sys.modules.pop("dlbench_plugin_mine", None)


def test_a_parameter_that_a_fit_leaves_undefined_is_refused(check):
    source = method(
        "    fitted: ClassVar[bool] = True\n    a: float = 0.0\n    def fit(self, probe):\n"
        f"        self.a = float('nan')\n{ROUTE}"
    )
    lines, _ = check(source)
    assert any("fit() sets a to nan; a parameter is a finite number" in line for line in lines)
    assert MethodError.exit_code == 2
