"""Count the FLOPs of the matrix products in a plugin's callback.

Every torch function that a callback calls is intercepted. A linear map is counted by its shape. Any other function that
may contain a product is decomposed into operators, and its products are counted. A function found to contain none is
remembered and costs almost nothing from then on: callbacks are called before every layer of every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

PLAIN = (Tensor, nn.Parameter)
"""Types of tensors that torch computes with as they are: a subclass may override what a product does."""
_Result = TypeVar("_Result")
_VECTOR = (torch.ops.aten.mv, torch.ops.aten.dot, torch.ops.aten.vdot)
"""Products missing from torch's registry: 2 FLOPs per element of the first argument."""
_MAYBE = ("mm", "matmul", "mv", "dot", "linear", "einsum", "conv", "attention", "cdist", "cov", "corr", "inner", "kron")
"""Parts of names of functions that are always decomposed: whether they contain products may depend on arguments."""
_without_products: set[Any] = set()
"""Functions known to contain no product."""


class TensorWork(TorchFunctionMode):
    """Counts the FLOPs of all matrix products while it is active: those of torch's registry, `mv` and `dot`."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.paused = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused or func in _without_products:
            return func(*args, **kwargs)
        if func is linear and len(args) > 1 and type(args[0]) in PLAIN and type(args[1]) in PLAIN:
            out = func(*args, **kwargs)
            self.flops += 2 * out.numel() * args[0].shape[-1]
            return out
        with _Products() as products:
            out = func(*args, **kwargs)
        self.flops += products.flops
        name = getattr(func, "__name__", "")
        if not products.flops and not any(part in name for part in _MAYBE):
            _without_products.add(func)
        return out


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the products among the operators of one torch function."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet in flop_registry:
            out = func(*args, **kwargs)
            self.flops += int(flop_registry[packet](*args, **kwargs, out_val=out))
            return out
        if packet in _VECTOR:
            self.flops += 2 * int(args[0].numel())
            return func(*args, **kwargs)
        # Under inference_mode `linear` and `matmul` arrive undecomposed: count the operators that they consist of.
        with self:
            parts = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if parts is NotImplemented else parts


def counted(work: Callable[[], _Result], *, metered: bool) -> tuple[_Result, int]:
    """Call a function; returns its result and the FLOPs of its matrix products, 0 unless metered."""
    if not metered:
        return work(), 0
    with TensorWork() as counter:
        result = work()
    return result, counter.flops
