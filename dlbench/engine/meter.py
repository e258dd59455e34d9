"""Count what ran, twice: executed FLOPs (what the kernels did, padding included) and credited FLOPs (true context).

Conventions, those of torch's own counter: a matrix product of [m, k] and [k, n] costs 2·m·k·n, nothing else costs
anything, and causal attention over a prompt counts the full square. Credited FLOPs equal executed ones at batch 1
without padding; a gap that grows with anything but padding is a bug or a masked fake.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers.pytorch_utils import Conv1D

from dlbench.backbones import Backbone, resolve

CATEGORIES = ("layers", "attention", "heads", "kv", "router")
Ints = NDArray[np.int64]
_VECTOR = (torch.ops.aten.mv, torch.ops.aten.dot, torch.ops.aten.vdot)
"""Products that torch's registry leaves out: 2 FLOPs per element of the first argument."""


def linear_flops(module: nn.Module | None) -> int:
    """FLOPs of all linear maps inside a module, per token."""
    if module is None:
        return 0
    return sum(2 * m.weight.numel() for m in module.modules() if isinstance(m, (nn.Linear, Conv1D)))


class Costs:
    """What one token costs on a backbone, by part."""

    def __init__(self, backbone: Backbone) -> None:
        config, family, model = backbone.model.config, backbone.family, backbone.model
        layers = list(backbone.layers)
        self.layer = np.array([linear_flops(layer) for layer in layers], dtype=np.int64)  # [depth]
        self.fill = np.array(
            [sum(linear_flops(resolve(layer, path)) for path in family.fill) for layer in layers], dtype=np.int64
        )  # [depth]
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.attention_per_key = 4 * heads * width  # scores and weighted sum, per layer
        self.head = sum(linear_flops(resolve(model, path)) for path in family.head)
        self.input = sum(linear_flops(resolve(model, path)) for path in family.inputs)
        self.vocabulary = linear_flops(resolve(model, family.head[-1]))
        """The LM head alone, which stock models run on the last position of a prompt only."""

    def dense(self, prompt: int, generated: int) -> int:
        """Decode FLOPs of full depth for `generated` tokens after a prompt of `prompt` tokens."""
        forwards = max(generated - 1, 0)
        keys = forwards * prompt + forwards * (forwards + 1) // 2
        linear = int(self.layer.sum()) + self.head + self.input
        attention: int = len(self.layer) * self.attention_per_key * keys
        return forwards * linear + attention


class Ledger:
    """Counts per row of a wave; slots are translated to rows by the caller's `order`."""

    def __init__(self, rows: int, metered: bool = True) -> None:
        self.metered = metered
        self.flops: dict[str, Ints] = {c: np.zeros(rows, dtype=np.int64) for c in CATEGORIES}
        self.executed: Ints = np.zeros(rows, dtype=np.int64)
        self.calls: Ints = np.zeros(rows, dtype=np.int64)
        """Executed layers of the forward under way."""
        self.depths: list[list[int]] = [[] for _ in range(rows)]
        """Executed layers per decode forward."""
        self.acted = False
        """Whether any token ever skipped or exited."""

    def charge(self, category: str, rows: Ints, flops: int | Ints, executed: int | Ints | None = None) -> None:
        """Add credited FLOPs to rows, and executed ones (the same unless given). Rows may repeat."""
        if not self.metered:
            return
        np.add.at(self.flops[category], rows, flops)
        np.add.at(self.executed, rows, flops if executed is None else executed)

    def close_step(self, rows: Ints) -> None:
        """End one decode forward for these rows."""
        for row in rows.tolist():
            self.depths[row].append(int(self.calls[row]))
        self.calls[:] = 0

    def total(self, row: int) -> dict[str, int]:
        """Credited FLOPs of one row by category."""
        return {c: int(self.flops[c][row]) for c in CATEGORIES}


class TensorWork(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the matrix work of a plugin's callback; torch's registry plus `mv` and `dot`, which it leaves out."""

    _idle: ClassVar[set[Any]] = set()
    """Operators seen so far that are no product and not made of other operators."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if self.paused or func in self._idle:
            return func(*args, **kwargs)
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
        if parts is not NotImplemented:
            return parts
        self._idle.add(func)
        return func(*args, **kwargs)
