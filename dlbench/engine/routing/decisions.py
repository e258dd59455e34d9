"""Ask a method and check its answer: one code for all tokens of the view, or one per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from dlbench.engine.flops.op_counter import TensorWork
from dlbench.engine.kv.storage import Slots
from dlbench.engine.routing.live_view import LiveView
from dlbench.errors import DlbenchError, MethodError
from dlbench.method import Action, Method, Route
from dlbench.registry import plugin_code

CODES = frozenset(int(a) for a in (Action.SKIP, Action.ATTN, Action.MLP, Action.RUN, Action.EXIT))
_RUN = int(Action.RUN)
_STAYS = CODES - {int(Action.EXIT)}


@dataclass(frozen=True)
class Answer:
    """A checked answer for the n tokens of a view."""

    codes: int | Slots
    """One code for all, or one per token, [n], not all the same."""
    flops: int
    """FLOPs of the method's matrix products for all n together."""
    scale: Tensor | None = None
    """See `Route.scale`: [n]."""
    memory: Tensor | None = None
    """See `Route.memory`: [n, m]."""


def ask(method: Method, view: LiveView, *, metered: bool) -> int | Answer:
    """Ask for the method's answer before a layer; only the code if it is one for all, no exit, and cost no products.

    Raises:
        DlbenchError: the method failed, or its answer is not valid; the message names it.
    """
    flops = 0
    try:
        if metered:
            with TensorWork() as work:
                view.work = work
                given = method.route(view)
            flops = work.flops
        else:
            given = method.route(view)
    except DlbenchError as error:  # raised by the view
        line = plugin_code.raised_at(type(method), error) or _route(method)
        raise MethodError(f"method {type(method).__name__}: {error} ({line})") from error
    except (Exception, SystemExit) as error:
        where = f"before layer {view.layer} at step {int(view.step.min())}"
        raise plugin_code.failure(method, error, where) from error
    if type(given) is Action and not flops and (code := int(given)) in _STAYS:  # the most frequent answer at batch 1
        return code
    answer, scale, memory = (
        (given.codes, given.scale, given.memory) if isinstance(given, Route) else (given, None, None)
    )
    if isinstance(given, Route):
        for name, value, shape in (("scale", scale, (view.count,)), ("memory", memory, (view.count, None))):
            if value is not None and (value.ndim != len(shape) or value.shape[0] != shape[0]):
                raise MethodError(
                    f"method {type(method).__name__} answered a {name} of shape {tuple(value.shape)} for "
                    f"{view.count} tokens; one entry per token of the view is wanted ({_route(method)})"
                )
    if isinstance(answer, Tensor):
        return Answer(_codes(method, answer, view.count), flops, scale, memory)
    if isinstance(answer, bool):  # as in a tensor of booleans
        answer = Action.RUN if answer else Action.SKIP
    if not isinstance(answer, int) or int(answer) not in CODES:
        _refuse(method, answer)
    return Answer(int(answer), flops, scale, memory)


def _codes(method: Method, answer: Tensor, count: int) -> int | Slots:
    """Check a tensor of codes or booleans; one code if all are equal."""
    if answer.shape != (count,):
        raise MethodError(
            f"method {type(method).__name__} answered a tensor of shape {tuple(answer.shape)} for {count} "
            f"tokens; route() gives one code per token of the view, or one Action for all ({_route(method)})"
        )
    if answer.is_floating_point():
        _refuse(method, answer.dtype)
    if answer.dtype == torch.bool:
        runs = answer.numpy(force=True)
        return runs * _RUN if count > 1 and runs.any() and not runs.all() else _RUN * int(runs[0])
    codes = answer.to("cpu", torch.int64).numpy()
    if unknown := set(codes.tolist()) - CODES:
        _refuse(method, min(unknown))
    return int(codes[0]) if (codes == codes[0]).all() else codes


def _refuse(method: Method, answer: object) -> NoReturn:
    raise MethodError(
        f"method {type(method).__name__} answered {answer!r}; an action is SKIP (0), ATTN (1), MLP (2), RUN (3) or "
        f"EXIT (4), or a tensor of such codes or of booleans; a Route holds one of these ({_route(method)})"
    )


def _route(method: Method) -> str:
    return plugin_code.place(type(method), "route")
