"""Check what the class of a method declares: faults that would otherwise show as a wrong row, or as none.

Each check returns the attribute at fault, or None for the class itself, and a sentence with what to write instead.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from dlbench.registry import kv_policies, plugin_code

if TYPE_CHECKING:
    from dlbench.method import Method, Oracle

    Declared: TypeAlias = type[Method] | type[Oracle]

Fault = tuple[str | None, str]


def fault(kind: Declared) -> str | None:
    """The first fault of a class, with the file and line where it stands; None where there is none."""
    from dlbench.method import Oracle

    checks: tuple[Callable[[Any], Iterator[Fault]], ...] = (_fields,)
    if not issubclass(kind, Oracle):
        checks = (_attributes, _fields, _knob, _scope, _future, _fit, _weights)
    for check in checks:
        for name, sentence in check(kind):
            return f"{plugin_code.place(kind, name)}: {sentence}"
    return None


def _attributes(kind: type[Method]) -> Iterator[Fault]:
    from dlbench.method import Knob

    policies = kv_policies.names()
    kv, knob, variants = kind.kv, kind.knob, kind.variants
    if not isinstance(kv, tuple) or not kv or not set(kv) <= set(policies):
        yield "kv", f"kv = {kv!r} is no tuple of {', '.join(policies)}; write kv = ({policies[-2]!r},), say"
    if knob is not None and not isinstance(knob, Knob):
        yield "knob", f"knob = {knob!r} is no Knob(name, low, high)"
    if not isinstance(variants, tuple) or not variants or not all(isinstance(one, Mapping) for one in variants):
        yield "variants", f"variants = {variants!r} is no tuple of mappings of parameters; write variants = ({{}},)"


def parameters(kind: type) -> set[str]:
    """Names of the fields of a method that are its parameters."""
    return {f.name for f in dataclasses.fields(kind) if f.init}


def _fields(kind: Declared) -> Iterator[Fault]:
    """Fields of a class without `@dataclass` are no parameters, and `--set` does not know them."""
    for one in plugin_code.own_classes(kind):
        if "__dataclass_fields__" in vars(one):
            continue
        annotated = [n for n, text in inspect.get_annotations(one).items() if "ClassVar" not in str(text)]
        made = [n for n, value in vars(one).items() if isinstance(value, dataclasses.Field)]
        if names := [*annotated, *made]:
            yield (
                names[0],
                f"{names[0]!r} is no parameter, since class {one.__name__} has no decorator; write @dataclass in the "
                "line above the class",
            )


def _knob(kind: type[Method]) -> Iterator[Fault]:
    knob, known = kind.knob, sorted(parameters(kind))
    if knob is None:
        return
    if knob.name not in known:
        close = get_close_matches(knob.name, known, 1)
        there = f"did you mean {close[0]!r}?" if close else f"there is {', '.join(known) or 'none'}"
        yield "knob", f"Knob({knob.name!r}, …) names no field of {kind.__name__}: {there}"
    elif not (math.isfinite(knob.low) and math.isfinite(knob.high) and knob.low != knob.high):
        yield "knob", f"the knob {knob.name!r} goes from {knob.low} to {knob.high}; give two different finite numbers"


def _scope(kind: type[Method]) -> Iterator[Fault]:
    from dlbench.method import Scope

    scope = inspect.getattr_static(kind, "scope")
    if isinstance(scope, str) and scope not in get_args(Scope):
        yield "scope", f"scope {scope!r} is none of {', '.join(get_args(Scope))}"
    if callable(scope) and not isinstance(scope, property):
        yield "scope", "scope is a property; write @property above it"


def _future(kind: type[Method]) -> Iterator[Fault]:
    if kind.uses_future and kind.deployable:
        yield "uses_future", "a method with uses_future = True cannot be deployed; write deployable = False beside it"


def _fit(kind: type[Method]) -> Iterator[Fault]:
    base = _base()
    overridden = kind.fit is not base.fit
    if overridden and not kind.fitted and kind.learns is base.learns:
        yield "fit", "fit() would never run; write fitted: ClassVar[bool] = True in the class"
    if issubclass(kind, _router()) and kind.fitted and not overridden:
        yield (
            None,
            f"{kind.__name__} has no fit(), so its gates would stay as build() made them; write fit(self, probe), "
            "which calls probe.train(self, steps=…, lr=…, weight=…, share=probe.budget)",
        )
    if not overridden or kind.weights is not base.weights:
        return
    known = parameters(kind)
    for name, line, file in _assigned_in_fit(kind):
        if name not in known:
            yield (
                "fit",
                f"fit() sets self.{name} (line {line} of {file.rpartition('/')[2]}), which is lost when the fit is "
                f"loaded again; make {name} a field, such as `{name}: float = 0.0`, or return tensors from weights() "
                "and take them in load_weights()",
            )


def _weights(kind: type[Method]) -> Iterator[Fault]:
    base = _base()
    saves, loads = kind.weights is not base.weights, kind.load_weights is not base.load_weights
    if saves and not loads:
        yield "weights", "what weights() returns could not be loaded; write load_weights(self, weights) too"
    if loads and not saves:
        yield "load_weights", "load_weights() never gets anything; write weights(self), which returns the tensors"


def _assigned_in_fit(kind: type) -> Iterator[tuple[str, int, str]]:
    """Attributes of self that the method's `fit` assigns to, with line and file."""
    found = plugin_code.function_node(kind, "fit")
    if found is None or not found[1].args.args:
        return
    file, function = found
    this = function.args.args[0].arg
    for node in ast.walk(function):
        for target in _targets(node):
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == this:
                yield target.attr, target.lineno, str(file)


def _targets(node: ast.AST) -> Iterator[ast.expr]:
    given = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AugAssign | ast.AnnAssign):
        given = [node.target]
    for target in given:
        yield from target.elts if isinstance(target, ast.Tuple | ast.List) else [target]


def _base() -> type[Method]:
    from dlbench.method import Method

    return Method


def _router() -> type[Method]:
    from dlbench.method import Router

    return Router
