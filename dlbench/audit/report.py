"""What `dlbench check` prints: what was tried, what failed, and how to mend it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dlbench.audit.contract import broken, clauses
from dlbench.audit.method_case import Bench, MethodCase
from dlbench.errors import DlbenchError
from dlbench.registry import methods as registry


def settings_of(kind: registry.MethodClass) -> list[Mapping[str, Any]]:
    """The parameter sets that a contract is checked with: the defaults, and each variant of a run."""
    return [{}, *(variant for variant in kind.variants if variant)]


def check(methods: Sequence[str], bench: Bench, say: Callable[[str], None]) -> int:
    """Check methods, and print a line for each clause; returns the number of clauses that do not hold.

    Args:
        methods: names, or paths of plugin files.
        bench: the model and documents.
        say: prints a line.
    """
    failed = 0
    for given in methods:
        try:
            registry.check_name(given)
            kind = registry.load(given)
        except DlbenchError as error:
            say(f"{registry.name_of(given)}\n  FAIL  loads: {error}")
            failed += 1
            continue
        for params in settings_of(kind):
            failed += _check_one(MethodCase(given, params, bench), say)
    return failed


def _check_one(case: MethodCase, say: Callable[[str], None]) -> int:
    start, failed, tried = time.perf_counter(), 0, clauses(case.kind)
    say(case.label)
    for clause in tried:
        error = broken(case, clause)
        say(f"  {'ok  ' if error is None else 'FAIL'}  {clause.name}: {clause.tries}")
        if error is not None:
            failed += 1
            say(f"        {error}")
            if clause.name in ("parameters", "declared", "fit"):
                break  # the others could not be tried
    done = f"{failed} of {len(tried)} clauses do not hold" if failed else f"all {len(tried)} clauses hold"
    say(f"  {done}, {time.perf_counter() - start:.1f} s")
    return failed
