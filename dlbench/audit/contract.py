"""The contract of a method: one function per clause, which raises a MethodError that says what broke it and the remedy.

Clauses are tried in order; the later ones need what the earlier ones hold.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlbench.audit.method_calls import closed_form
from dlbench.audit.method_case import MethodCase
from dlbench.errors import DlbenchError, MethodError
from dlbench.fit.open_loop import record, shares
from dlbench.method import Draft, Method, Oracle, Scope
from dlbench.registry import plugin_code

DEPTHS = (4, 16, 24, 32)
_SLACK = 0.02
_BUDGETS = (0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Clause:
    """One clause of the contract."""

    name: str
    tries: str
    """What is tried, in one line."""
    check: Callable[[MethodCase], None]
    oracles: bool = False
    """Whether it holds for oracles too."""


def _broken(case: MethodCase, what: str, at: str | None = None) -> MethodError:
    return MethodError(f"{what} ({plugin_code.place(case.kind, at)})")


def _described(case: MethodCase) -> None:
    doc = case.kind.__doc__ or ""
    if not doc.strip() or doc.startswith(f"{case.kind.__name__}("):
        raise _broken(case, 'the class has no docstring; its first line, """Skip …""", is what lists show')


def _parameters(case: MethodCase) -> None:
    with plugin_code.blaming(case.kind, "with its own parameters"):
        made = case.kind.from_params(case.params)
        try:
            stored = json.loads(json.dumps(made.params(), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise _broken(case, f"parameters are no JSON: {error}; use numbers, texts, booleans, tuples") from error
        again = case.kind.from_params(stored)
    if again.params() != made.params() or again != made:
        raise _broken(case, f"parameters {made.params()} come back from JSON as {again.params()}")
    for name, value in case.params.items():
        if made.params()[name] != (list(value) if isinstance(value, tuple) else value):
            raise _broken(case, f"{name} = {value!r} is not kept: it is {made.params()[name]!r}", "__post_init__")


def _depths(case: MethodCase) -> None:
    for depth in DEPTHS:
        try:
            case.kind.from_params(case.params).validate(depth)
        except Exception as error:
            raise plugin_code.failure(case.kind, error, f"in validate() for {depth} layers") from error


def _declared(case: MethodCase) -> None:
    method = case.fresh()
    with plugin_code.blaming(method, "in what it declares"):
        scope, live, reads = method.scope, method.live(case.depth), method.reads(case.depth)
    if scope not in get_args(Scope):
        raise _broken(case, f"scope {scope!r} is none of {', '.join(get_args(Scope))}", "scope")
    for name, layers, last in (("live", live, case.depth - 1), ("reads", reads, case.depth)):
        if layers is not None and not all(type(i) is int and 0 <= i <= last for i in layers):
            raise _broken(case, f"{name}({case.depth}) = {set(layers)}; layers are numbers from 0 to {last}", name)


def _closed_form(case: MethodCase) -> None:
    method = case.fresh()
    if method.learns or type(method).at is Method.at:
        return
    with plugin_code.blaming(method, "in at()"):
        for depth in (case.depth, *DEPTHS):
            for budget in _BUDGETS:
                if (found := closed_form(method, budget, depth)) is not None:
                    found.validate(depth)


def _oracle(case: MethodCase) -> None:
    if case.kind.deployable:
        raise _broken(case, "an oracle is never deployable; leave deployable away")


def _fit(case: MethodCase) -> None:
    for name, value in case.fitted.params().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _broken(case, f"{name} is {value} after the fit; a parameter is a finite number", "fit")


def _answers(case: MethodCase) -> None:
    method = case.fitted
    with _comparisons_watched(method):
        for kv in method.kv if method.scope == "token" else (None,):
            case.decode(method, kv=kv)


def _state(case: MethodCase) -> None:
    method = case.fitted
    before, weights = method.params(), {name: tensor.clone() for name, tensor in method.weights().items()}
    case.decode(method)
    if method.params() != before:
        changed = next(name for name, value in method.params().items() if value != before[name])
        raise _broken(case, f"decoding changes {changed}; keep what a text needs in its memory, not on self", "route")
    after = method.weights()
    if after.keys() != weights.keys() or not all(torch.equal(after[name], old) for name, old in weights.items()):
        raise _broken(case, "decoding changes weights(); they are what the fit has learnt", "route")


def _reload(case: MethodCase) -> None:
    method = case.fitted
    again = type(method).from_params(json.loads(json.dumps(method.params())))
    with plugin_code.blaming(method, "in load_weights()"):
        again.load_weights({name: tensor.clone() for name, tensor in method.weights().items()})
    if again.params() != method.params() or case.decode(again) != case.together:
        raise _broken(
            case,
            "loaded again from its parameters and weights(), it decides otherwise; what fit() learns belongs into "
            "fields of the dataclass, or into weights()",
            "fit",
        )


def _repeats(case: MethodCase) -> None:
    if case.decode(case.fitted) != case.together:
        raise _broken(
            case,
            "the same prompts, decoded twice under one seed, run other layers; take noise from view.uniform(), and "
            "keep state in view.memory, not on self",
            "route",
        )


def _neighbours(case: MethodCase) -> None:
    method = case.fitted
    if method.batch_dependent:
        return
    for how, found in (("two", case.decode(method, slots=2)), ("one", case.decode(method, alone=True))):
        if found != case.together:
            raise _broken(
                case,
                f"a text runs other layers when {how} of the batch are decoded together; decide for each row of the "
                "view by itself, or let batch_dependent be True",
                "route",
            )


def _knob(case: MethodCase) -> None:
    method = case.fresh() if not case.fresh().learns else case.fitted
    knob, trace = method.knob, record(case.probe.references)
    if knob is None or not method.tuned or method.batch_dependent or method.uses_future or trace is None:
        return
    reads = sorted(method.reads(case.depth))
    prompt = case.probe.prompts(reads, "tune") if reads or type(method).begin is not Method.begin else None
    references, value = case.probe.references, getattr(method, knob.name)

    def curve(one: Method, values: Sequence[float]) -> list[float]:
        return shares(references, one, trace, values, prompt)

    with plugin_code.blaming(method, "while its knob was turned"):
        if closed_form(method, 0.5, case.depth) is None:
            values = [knob.low + (knob.high - knob.low) * i / 8 for i in range(9)]
            found = curve(method, values)
        else:
            several = (closed_form(method, budget, case.depth) for budget in _BUDGETS)
            found = [curve(one, [getattr(one, knob.name)])[0] for one in several if one is not None]
    setattr(method, knob.name, value)
    if any(b < a - _SLACK for a, b in itertools.pairwise(found)) or found[-1] <= found[0]:
        raise _broken(
            case,
            f"the layer share does not rise with {knob.name}: from {knob.low} to {knob.high} it is "
            f"{', '.join(f'{share:.2f}' for share in found)}; Knob(name, low, high) goes from the value of the "
            "smallest share to that of the largest",
            "knob",
        )


CLAUSES = (
    Clause("described", "the class has a docstring", _described, oracles=True),
    Clause("parameters", "they go through JSON unchanged", _parameters, oracles=True),
    Clause("depths", f"validate() takes models of {', '.join(map(str, DEPTHS))} layers", _depths, oracles=True),
    Clause("oracle", "it is not called deployable", _oracle, oracles=True),
    Clause("declared", "scope, live() and reads() are what they may be", _declared),
    Clause("closed form", "at() answers without changing self", _closed_form),
    Clause("fit", "fit() runs, and the knob is tuned", _fit),
    Clause("answers", "under every KV policy, answers are valid and no score is NaN", _answers),
    Clause("state", "decoding leaves parameters and weights alone", _state),
    Clause("repeats", "decoded twice, it decides the same", _repeats),
    Clause("reload", "loaded again, the fit decides the same", _reload),
    Clause("neighbours", "a text does not depend on the others of its batch", _neighbours),
    Clause("knob", "the layer share rises from the knob's low to its high", _knob),
)


def clauses(kind: type) -> list[Clause]:
    """The clauses that hold for a class."""
    oracle = issubclass(kind, Oracle)
    return [clause for clause in CLAUSES if (clause.oracles if oracle else clause.name != "oracle")]


class _Comparisons(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses comparisons of what is not a number: they are False, and a layer would be skipped or run by that."""

    _WATCHED = tuple(getattr(torch.ops.aten, name) for name in ("ge", "gt", "le", "lt"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in self._WATCHED:
            for value in args:
                if isinstance(value, Tensor) and value.is_floating_point() and bool(value.isnan().any()):
                    raise MethodError(
                        "a score that is compared is not a number (NaN), so the comparison is False whatever the "
                        "threshold; look for a division by zero, or the logarithm of zero"
                    )
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _comparisons_watched(method: Method) -> Iterator[None]:
    """Watch the comparisons in a method's `route`."""
    if isinstance(method, Draft):
        yield
        return
    route = method.route

    def watched(view: Any) -> Any:
        with _Comparisons():  # type: ignore[no-untyped-call]
            return route(view)

    vars(method)["route"] = watched
    try:
        yield
    finally:
        del vars(method)["route"]


def broken(case: MethodCase, clause: Clause) -> DlbenchError | None:
    """Try one clause; returns what broke it, None where it holds."""
    try:
        clause.check(case)
    except DlbenchError as error:
        return error
    except Exception as error:
        if (failure := plugin_code.blame(case.kind, error)) is not None:
            return failure
        raise
    return None
