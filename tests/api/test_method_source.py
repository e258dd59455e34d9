"""Classes of a notebook or script as plugin files."""

import linecache
import sys
import types

import pytest

from dlbench.api.given_methods import resolve
from dlbench.api.method_source import source_of
from dlbench.errors import DlbenchError
from dlbench.registry import methods as registry

CELLS = """
import math as m
from dataclasses import dataclass
from typing import Any, ClassVar
import torch
from torch import Tensor
from dlbench.method import Action, Knob, Method, View

FIRST = 2
KINDS = ("a", "b")
THINGS = [object()]

def half(depth):
    return m.floor(depth / FIRST)

class _Helper:
    pass

@dataclass
class EverySecond(Method):
    '''Run every second layer.'''

    warmup: int = 2
    knob: ClassVar[Any] = None

    def route(self, view: View) -> Action | Tensor:
        assert _Helper and KINDS
        return Action.RUN if view.layer % 2 == 0 or view.layer < half(view.depth) else view.step < self.warmup

@dataclass
class UsesThings(Method):
    '''Uses a list.'''

    def route(self, view):
        return Action.RUN if THINGS else Action.SKIP
"""


@pytest.fixture
def cells(monkeypatch):
    """A module as a notebook leaves it: no file, lines in the cache under the name of a cell."""
    module = types.ModuleType("notebook_cells")
    monkeypatch.setitem(sys.modules, "notebook_cells", module)
    monkeypatch.setitem(linecache.cache, "<cell 1>", (len(CELLS), None, CELLS.splitlines(keepends=True), "<cell 1>"))
    exec(compile(CELLS, "<cell 1>", "exec"), vars(module))
    return module


def test_a_class_comes_with_what_it_uses(cells, tmp_path):
    (path,), settings = resolve([cells.EverySecond], tmp_path)
    assert path == str(tmp_path / "every_second.py")
    loaded = registry.load(path)
    assert loaded.__name__ == "EverySecond"
    assert loaded(3).params() == {"warmup": 3}
    assert settings == {}
    source = source_of(cells.EverySecond)
    assert "FIRST = 2" in source
    assert "import math as m" in source
    assert "THINGS" not in source
    assert "from dlbench.method import Action" in source


def test_an_instance_gives_the_parameters_that_differ(cells, tmp_path):
    (path,), settings = resolve([cells.EverySecond(5)], tmp_path)
    assert settings == {registry.name_of(path): {"warmup": 5}}
    assert resolve([cells.EverySecond(2)], tmp_path)[1] == {"every_second": {}}


def test_what_cannot_be_written_is_named(cells):
    with pytest.raises(DlbenchError, match="UsesThings cannot be run from here: 'THINGS', which it uses"):
        source_of(cells.UsesThings)


def test_a_class_inside_a_function_is_refused():
    class Inner:
        pass

    with pytest.raises(DlbenchError, match="it is defined inside a function"):
        source_of(Inner)


def test_an_installed_class_is_taken_by_its_name(tmp_path):
    kinds = [registry.load("static_skip"), registry.load("hidden_router")]
    assert resolve(kinds, tmp_path) == (("static_skip", "hidden_router"), {})
    assert not list(tmp_path.iterdir())


def test_variants_of_an_instance_are_one(tmp_path):
    """An instance asks for itself alone, not for all variants of its class."""
    kind = registry.load("hidden_router")
    assert resolve([kind()], tmp_path)[1] == {"hidden_router": {"fixed_input": False}}


def test_fitted_weights_are_not_thrown_away(tmp_path):
    router = registry.load("hidden_router")()
    router.module(4, 8)
    with pytest.raises(DlbenchError, match=r"holds fitted weights.*dlbench\.evaluate"):
        resolve([router], tmp_path)
