"""Calls of a method's own code that check what comes of them."""

from __future__ import annotations

import dataclasses
import math

from dlbench.errors import MethodError
from dlbench.method import Method, Probe
from dlbench.registry import plugin_code


def closed_form(method: Method, budget: float, depth: int) -> Method | None:
    """What `at` answers.

    Raises:
        MethodError: it changed the method that it was asked of, or is no method of its class.
    """
    before = method.params()
    found: object = method.at(budget, depth)
    where = plugin_code.place(type(method), "at")
    if method.params() != before:
        raise MethodError(
            f"method {type(method).__name__}: at() changes self, which serves all budgets; return a changed copy: "
            f"`return dataclasses.replace(self, …)` ({where})"
        )
    if found is not None and not isinstance(found, type(method)):
        raise MethodError(
            f"method {type(method).__name__}: at() gave {found!r}; return a method of the same class, or None where "
            f"the knob is tuned ({where})"
        )
    return found


def learn_parameters(method: Method, probe: Probe) -> None:
    """Let a method fit itself.

    Raises:
        MethodError: something that it learnt would be lost when the fit is loaded again, or is not a finite number.
    """
    before = dict(vars(method))
    method.fit(probe)
    name, where = type(method).__name__, plugin_code.place(type(method), "fit")
    known = {f.name for f in dataclasses.fields(method) if f.init}
    lost = [key for key, value in vars(method).items() if key not in known and before.get(key, before) is not value]
    if lost and not method.weights():
        raise MethodError(
            f"method {name}: fit() sets {lost[0]}, which is no field and lost when the fit is loaded again; make it a "
            f"field of the dataclass, or return tensors from weights() ({where})"
        )
    for key, value in method.params().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise MethodError(f"method {name}: fit() sets {key} to {value}; a parameter is a finite number ({where})")
    for key, tensor in method.weights().items():
        if not bool(tensor.isfinite().all()):
            raise MethodError(f"method {name}: fit() leaves numbers in {key!r} that are not finite ({where})")
