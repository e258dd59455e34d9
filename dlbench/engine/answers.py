"""What a method answered, checked: one code for all awake tokens, or one per token."""

from __future__ import annotations

import traceback
from typing import NoReturn

import torch
from torch import Tensor

from dlbench.engine.cache import Slots
from dlbench.engine.view import LiveView
from dlbench.engine.work import TensorWork
from dlbench.errors import DlbenchError
from dlbench.method import Action, Method

CODES = frozenset(int(a) for a in (Action.SKIP, Action.ATTN, Action.MLP, Action.RUN, Action.EXIT))


def ask(method: Method, view: LiveView, *, metered: bool) -> tuple[int | Slots, int]:
    """The method's answer and the FLOPs of its matrix products.

    Returns:
        One code for all tokens of the view, or one code per token, [n], not all the same; and FLOPs of all n together.

    Raises:
        DlbenchError: the method failed, or its answer is none; the message names it.
    """
    try:
        if metered:
            with TensorWork() as work:
                view.work = work
                answer = method.route(view)
        else:
            answer = method.route(view)
    except DlbenchError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise DlbenchError(
            f"method {type(method).__name__} failed before layer {view.layer} at step {int(view.step.min())}: "
            f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
        ) from error
    flops = work.flops if metered else 0
    if isinstance(answer, Tensor):
        return _codes(method, answer, view.count), flops
    if not isinstance(answer, int) or int(answer) not in CODES:
        _refuse(method, answer)
    return int(answer), flops


def _codes(method: Method, answer: Tensor, count: int) -> int | Slots:
    if answer.shape != (count,):
        raise DlbenchError(
            f"method {type(method).__name__} answered a tensor of shape {tuple(answer.shape)} for {count} "
            "tokens; route() gives one code per token of the view, or one Action for all"
        )
    if answer.is_floating_point():
        _refuse(method, answer.dtype)
    codes = answer.to("cpu", torch.int64)
    if answer.dtype == torch.bool:
        codes = codes * int(Action.RUN)
    found = codes.numpy()
    if strange := set(found.tolist()) - CODES:
        _refuse(method, min(strange))
    return int(found[0]) if (found == found[0]).all() else found


def _refuse(method: Method, answer: object) -> NoReturn:
    raise DlbenchError(
        f"method {type(method).__name__} answered {answer!r}; an action is SKIP (0), ATTN (1), MLP (2), RUN (3) or "
        "EXIT (4), or a tensor of such codes or of booleans"
    )
