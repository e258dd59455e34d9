"""What a class declares wrongly is said when it is loaded, with the line of the file and what to write instead."""

import sys

import pytest

from dlbench.errors import MethodError
from dlbench.registry import methods as registry

HEAD = """\
from dataclasses import dataclass, field
from typing import ClassVar
from dlbench.method import Action, Knob, Method, Static
"""
BODY = "    def route(self, view):\n        return Action.RUN\n"


def method(body, decorator="@dataclass\n"):
    return f"{HEAD}{decorator}class Mine(Method):\n{body}{BODY}"


FAULTS = {
    "no decorator": (method("    warmup: int = 4\n", ""), 5, "'warmup' is no parameter.*write @dataclass in the line"),
    "a bare field": (method("    sizes = field(default=3)\n", ""), 5, "'sizes' is no parameter.*write @dataclass"),
    "a knob that names no field": (
        method("    knob: ClassVar = Knob('thresold', 0, 1)\n    threshold: float = 0.5\n"),
        6,
        r"Knob\('thresold', …\) names no field of Mine: did you mean 'threshold'",
    ),
    "a knob without a range": (
        method("    knob: ClassVar = Knob('share', 1, 1)\n    share: float = 0.5\n"),
        6,
        "from 1 to 1; give two different finite numbers",
    ),
    "a fit that never runs": (
        method("    a: float = 0.0\n    def fit(self, probe):\n        self.a = 1.0\n"),
        7,
        r"fit\(\) would never run; write fitted: ClassVar\[bool\] = True",
    ),
    "a learnt attribute that is no field": (
        method("    fitted: ClassVar = True\n    def fit(self, probe):\n        self.mean, self.b = 1.0, 2\n"),
        7,
        r"fit\(\) sets self\.mean \(line 8 of .*\), which is lost .* make mean a field",
    ),
    "an attribute that a fit keeps from saving": (
        method(
            "    fitted: ClassVar = True\n    a: float = field(init=False, default=0.0)\n"
            "    def fit(self, probe):\n        self.a += 1.0\n"
        ),
        8,
        r"fit\(\) sets self\.a .* which is lost",
    ),
    "a router that is never trained": (
        f"{HEAD}from dlbench.method import Router\n@dataclass\nclass Mine(Router):\n"
        "    def build(self, depth, width):\n        return None\n"
        "    def gated(self, depth):\n        return frozenset()\n",
        6,
        r"Mine has no fit\(\), .*; write fit\(self, probe\), which calls probe\.train\(self, steps=…, .*share=probe",
    ),
    "the future, deployed": (method("    uses_future = True\n"), 6, "write deployable = False beside it"),
    "weights that cannot be loaded": (
        method("    def weights(self):\n        return {}\n"),
        6,
        r"could not be loaded; write load_weights\(self, weights\)",
    ),
    "weights that never come": (
        method("    def load_weights(self, weights):\n        pass\n"),
        6,
        r"load_weights\(\) never gets anything; write weights",
    ),
    "an unknown policy": (method("    kv = ('keep',)\n"), 6, r"kv = \('keep',\) is no tuple of evict, project, rec"),
    "an unknown scope": (method("    scope = 'layer'\n"), 6, "scope 'layer' is none of static, sequence, token"),
    "a scope that is no property": (method("    def scope(self):\n        return 'static'\n"), 6, "write @property"),
}


@pytest.mark.parametrize(("source", "line", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_said_with_its_line_and_remedy(tmp_path, source, line, message):
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(MethodError, match=message) as error:
        registry.load(str(path))
    assert f"method 'mine': {path}, line {line}: " in str(error.value)
    assert "\n" not in str(error.value)
    sys.modules.pop("dlbench_plugin_mine", None)


def test_what_a_fit_returns_as_weights_need_not_be_a_field(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        method(
            "    fitted: ClassVar = True\n"
            "    def fit(self, probe):\n        self.centre = 1.0\n"
            "    def weights(self):\n        return {}\n"
            "    def load_weights(self, weights):\n        pass\n"
        )
    )
    assert registry.load(str(path)).fitted
    sys.modules.pop("dlbench_plugin_mine", None)


def test_an_inherited_fault_is_said_where_it_stands(tmp_path, monkeypatch):
    (tmp_path / "base_of_mine.py").write_text(method("    uses_future = True\n"))
    path = tmp_path / "mine.py"
    path.write_text("import base_of_mine\nclass Other(base_of_mine.Mine):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MethodError, match=r"base_of_mine\.py, line 6: .*deployable = False"):
        registry.load(str(path))
    for name in ("dlbench_plugin_mine", "base_of_mine"):
        sys.modules.pop(name, None)
