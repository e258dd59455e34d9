"""A pytest plugin that checks the contract of methods, as `dlbench check` does: one test per clause.

    pytest_plugins = ["dlbench.testing"]
    dlbench_methods = ["my_method"]

    def test_contract(contract):
        contract()

`dlbench_methods` names methods that are installed, or paths of plugin files.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from dlbench.audit.contract import Clause, broken, clauses
from dlbench.audit.method_case import Bench, MethodCase
from dlbench.audit.report import settings_of
from dlbench.registry import methods as registry


@functools.cache
def _bench() -> Bench:
    return Bench.tiny()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each clause, for every method that the module names and each of its variants."""
    if "contract" not in metafunc.fixturenames:
        return
    cases = []
    for given in getattr(metafunc.module, "dlbench_methods", ()):
        kind = registry.load(given)
        for params in settings_of(kind):
            case = MethodCase(given, params, _bench())
            cases += [pytest.param((case, one), id=f"{case.label}: {one.name}") for one in clauses(kind)]
    metafunc.parametrize("contract", cases, indirect=True)


@pytest.fixture
def contract(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Checks one clause of the contract of one method when it is called."""
    case, clause = _case(request.param)

    def check() -> None:
        error = broken(case, clause)
        if error is not None:
            pytest.fail(f"{case.label}: {clause.tries}: {error}", pytrace=False)

    return check


def _case(param: Any) -> tuple[MethodCase, Clause]:
    case, clause = param
    return case, clause
