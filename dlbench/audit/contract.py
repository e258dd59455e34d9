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
from dlbench.audit.subject import Subject
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
    check: Callable[[Subject], None]
    oracles: bool = False
    """Whether it holds for oracles too."""


def _broken(subject: Subject, what: str, at: str | None = None) -> MethodError:
    return MethodError(f"{what} ({plugin_code.place(subject.kind, at)})")


def _described(subject: Subject) -> None:
    doc = subject.kind.__doc__ or ""
    if not doc.strip() or doc.startswith(f"{subject.kind.__name__}("):
        raise _broken(subject, 'the class has no docstring; its first line, """Skip …""", is what lists show')


def _parameters(subject: Subject) -> None:
    with plugin_code.blaming(subject.kind, "with its own parameters"):
        made = subject.kind.from_params(subject.params)
        try:
            stored = json.loads(json.dumps(made.params(), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise _broken(subject, f"parameters are no JSON: {error}; use numbers, texts, booleans, tuples") from error
        again = subject.kind.from_params(stored)
    if again.params() != made.params() or again != made:
        raise _broken(subject, f"parameters {made.params()} come back from JSON as {again.params()}")
    for name, value in subject.params.items():
        if made.params()[name] != (list(value) if isinstance(value, tuple) else value):
            raise _broken(subject, f"{name} = {value!r} is not kept: it is {made.params()[name]!r}", "__post_init__")


def _depths(subject: Subject) -> None:
    for depth in DEPTHS:
        try:
            subject.kind.from_params(subject.params).validate(depth)
        except Exception as error:
            raise plugin_code.failure(subject.kind, error, f"in validate() for {depth} layers") from error


def _declared(subject: Subject) -> None:
    method = subject.fresh()
    with plugin_code.blaming(method, "in what it declares"):
        scope, live, reads = method.scope, method.live(subject.depth), method.reads(subject.depth)
    if scope not in get_args(Scope):
        raise _broken(subject, f"scope {scope!r} is none of {', '.join(get_args(Scope))}", "scope")
    for name, layers, last in (("live", live, subject.depth - 1), ("reads", reads, subject.depth)):
        if layers is not None and not all(type(i) is int and 0 <= i <= last for i in layers):
            raise _broken(
                subject, f"{name}({subject.depth}) = {set(layers)}; layers are numbers from 0 to {last}", name
            )


def _closed_form(subject: Subject) -> None:
    method = subject.fresh()
    if method.learns or type(method).at is Method.at:
        return
    with plugin_code.blaming(method, "in at()"):
        for depth in (subject.depth, *DEPTHS):
            for budget in _BUDGETS:
                if (found := closed_form(method, budget, depth)) is not None:
                    found.validate(depth)


def _oracle(subject: Subject) -> None:
    if subject.kind.deployable:
        raise _broken(subject, "an oracle is never deployable; leave deployable away")


def _fit(subject: Subject) -> None:
    for name, value in subject.fitted.params().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise _broken(subject, f"{name} is {value} after the fit; a parameter is a finite number", "fit")


def _answers(subject: Subject) -> None:
    method = subject.fitted
    with _comparisons_watched(method):
        for kv in method.kv if method.scope == "token" else (None,):
            subject.decode(method, kv=kv)


def _state(subject: Subject) -> None:
    method = subject.fitted
    before, weights = method.params(), {name: tensor.clone() for name, tensor in method.weights().items()}
    subject.decode(method)
    if method.params() != before:
        changed = next(name for name, value in method.params().items() if value != before[name])
        raise _broken(
            subject, f"decoding changes {changed}; keep what a text needs in its memory, not on self", "route"
        )
    after = method.weights()
    if after.keys() != weights.keys() or not all(torch.equal(after[name], old) for name, old in weights.items()):
        raise _broken(subject, "decoding changes weights(); they are what the fit has learnt", "route")


def _reload(subject: Subject) -> None:
    method = subject.fitted
    again = type(method).from_params(json.loads(json.dumps(method.params())))
    with plugin_code.blaming(method, "in load_weights()"):
        again.load_weights({name: tensor.clone() for name, tensor in method.weights().items()})
    if again.params() != method.params() or subject.decode(again) != subject.decode(method):
        raise _broken(
            subject,
            "loaded again from its parameters and weights(), it decides otherwise; what fit() learns belongs into "
            "fields of the dataclass, or into weights()",
            "fit",
        )


def _repeats(subject: Subject) -> None:
    if subject.decode(subject.fitted) != subject.decode(subject.fitted):
        raise _broken(
            subject,
            "the same prompts, decoded twice under one seed, run other layers; take noise from view.uniform(), and "
            "keep state in view.memory, not on self",
            "route",
        )


def _neighbours(subject: Subject) -> None:
    method = subject.fitted
    if method.batch_dependent:
        return
    together = subject.decode(method)
    for how, found in (("two", subject.decode(method, slots=2)), ("one", subject.decode(method, alone=True))):
        if found != together:
            raise _broken(
                subject,
                f"a text runs other layers when {how} of the batch are decoded together; decide for each row of the "
                "view by itself, or let batch_dependent be True",
                "route",
            )


def _knob(subject: Subject) -> None:
    method = subject.fresh() if not subject.fresh().learns else subject.fitted
    knob, trace = method.knob, record(subject.probe.references)
    if knob is None or not method.tuned or method.batch_dependent or method.uses_future or trace is None:
        return
    reads = sorted(method.reads(subject.depth))
    prompt = subject.probe.prompts(reads, "tune") if reads or type(method).begin is not Method.begin else None
    references, value = subject.probe.references, getattr(method, knob.name)

    def curve(one: Method, values: Sequence[float]) -> list[float]:
        return shares(references, one, trace, values, prompt)

    with plugin_code.blaming(method, "while its knob was turned"):
        if closed_form(method, 0.5, subject.depth) is None:
            values = [knob.low + (knob.high - knob.low) * i / 8 for i in range(9)]
            found = curve(method, values)
        else:
            several = (closed_form(method, budget, subject.depth) for budget in _BUDGETS)
            found = [curve(one, [getattr(one, knob.name)])[0] for one in several if one is not None]
    setattr(method, knob.name, value)
    if any(b < a - _SLACK for a, b in itertools.pairwise(found)) or found[-1] <= found[0]:
        raise _broken(
            subject,
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


def broken(subject: Subject, clause: Clause) -> DlbenchError | None:
    """Try one clause; returns what broke it, None where it holds."""
    try:
        clause.check(subject)
    except DlbenchError as error:
        return error
    except Exception as error:
        if (failure := plugin_code.blame(subject.kind, error)) is not None:
            return failure
        raise
    return None
