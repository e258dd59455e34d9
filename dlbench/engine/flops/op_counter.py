"""Count the matrix products of a plugin's callback.

Every torch function that a callback calls passes by here. A linear map is counted by its shape. Any other function that
may hold a product is taken apart, operator by operator, and its products counted; that one never does is learnt when it
is first taken apart, and costs next to nothing from then on: a callback is asked before every layer of every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dlbench.engine.kernels.linear import PLAIN

_VECTOR = (torch.ops.aten.mv, torch.ops.aten.dot, torch.ops.aten.vdot)
"""Products that torch's registry leaves out: 2 FLOPs per element of the first argument."""
_MAYBE = ("mm", "matmul", "mv", "dot", "linear", "einsum", "conv", "attention", "cdist", "cov", "corr", "inner", "kron")
"""Parts of names of functions that are always taken apart: their products may depend on the arguments."""
_idle: set[Any] = set()
"""Functions that are known to hold no product."""


class TensorWork(TorchFunctionMode):
    """Counts, while it is entered, the FLOPs of all matrix products; torch's registry plus `mv` and `dot`."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.paused = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused or func in _idle:
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
            _idle.add(func)
        return out


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the products among the operators of one function."""

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
        # Under inference_mode `linear` and `matmul` arrive whole: what they are made of is counted.
        with self:
            parts = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if parts is NotImplemented else parts
