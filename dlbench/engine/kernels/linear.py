"""Products of few rows with a weight matrix, as a decode step has them, faster than torch's own on a CPU.

For float32 on a CPU torch hands `x @ weight.T` to BLAS as it stands, and a handful of rows is a shape that BLAS blocks
badly. Where it is not Intel's own on a processor of Intel's, one row is not even threaded. The same product is written
differently here:

- split: the weight in parts, one batched product: threaded, and bound by memory alone;
- swap: `weight @ x.T`;
- blocks: as split, with x on the left;
- onednn: the kernel that torch's own compiler calls for a linear layer.

Which of them is decided by the shape, the number of threads and the kind of processor, never by a measurement: the same
call rounds alike on every run. Any other dtype or device, and anything that records gradients, goes to
`torch.nn.functional.linear`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as stock_linear
from transformers.pytorch_utils import Conv1D

from dlbench.engine.flops.op_counter import PLAIN
from dlbench.system import cpu

Way = Literal["split", "swap", "blocks", "onednn", "torch"]

MOST_ROWS = 128
"""More rows than these are left to torch."""
_ONEDNN: Any = None
if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
    _ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


INTEL = torch.backends.mkl.is_available() and cpu.vendor() == "GenuineIntel"  # type: ignore[no-untyped-call]
"""Whether BLAS is Intel's on a processor of Intel's: it has other strengths there than on any other."""


def way(
    rows: int,
    outputs: int,
    inputs: int,
    *,
    threads: int,
    transposed: bool = False,
    columns: bool = False,
    intel: bool | None = None,
) -> Way:
    """How the product of [rows, inputs] with [outputs, inputs] is best computed in float32 on a CPU.

    Args:
        rows: rows of the left factor.
        outputs: rows of the weight.
        inputs: columns of the weight.
        threads: threads that torch may use.
        transposed: whether the weight lies in memory as [inputs, outputs].
        columns: whether the left factor lies in memory as [inputs, rows], as a swapped product leaves it.
        intel: whether BLAS is Intel's on a processor of Intel's; None as on this machine.
    """
    if rows > MOST_ROWS or rows < 1:
        return "torch"
    small = outputs * inputs <= 1 << 18  # 1 MiB
    rest: Way = "torch" if _ONEDNN is None or (small and threads == 1) else "onednn"
    if INTEL if intel is None else intel:
        if transposed or rows <= 3:
            return "torch"
        if rows > 48:
            return "torch" if small else rest
        if small:
            return "torch" if rows <= 12 and not columns and (threads == 1 or inputs > outputs) else "swap"
        return "swap" if rows >= 16 and outputs <= 4 * inputs else rest  # swapped logits are slow to search
    if small and threads > 1 and rows % 16 == 0:  # the width of the swapped product's own blocks
        return "swap"
    if transposed:
        if rows > 1:
            return rest
        return "torch" if threads == 1 or inputs % 2 else "split"
    if rows == 1:
        return rest if outputs % 2 else "split"
    if rows <= 8 and rows * inputs < 1 << 12:  # 16 KiB: fits the innermost cache
        return "swap"
    return "blocks" if small and threads > 1 else rest


class Product:
    """x [rows, K] -> x @ weight.T + bias [rows, N], which may come back as a transposed view.

    The weight is [N, K], or the transpose of a matrix that lies in memory as [K, N].
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.outputs, self.inputs = weight.shape
        self.transposed = not weight.is_contiguous()
        self.special = _special(weight, bias)

    def part(self, outputs: slice) -> Product:
        """Some of the outputs."""
        return Product(self.weight[outputs], None if self.bias is None else self.bias[outputs])

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """The product; with `onto` [rows, N], which stays as it is, their sum."""
        rows = x.shape[0]
        if onto is not None and self.bias is None and not self.special:
            return torch.addmm(onto, x, self.weight.t())
        found: Way = "torch"
        if self.special and rows <= MOST_ROWS:
            shape, threads = (rows, self.outputs, self.inputs), torch.get_num_threads()
            found = way(*shape, threads=threads, transposed=self.transposed, columns=_columns(x))
        out = _compute(found, x, self.weight, self.bias)
        # not by the product itself: in float32 some BLAS sum onto it term by term, and round at its size every time
        return out if onto is None else torch.add(onto, out)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As torch.nn.functional.linear: x [..., K], weight [N, K], bias [N] -> [..., N], not always contiguous."""
    outputs, inputs = weight.shape
    rows = x.numel() // inputs if inputs else 0
    if not 0 < rows <= MOST_ROWS or x.dtype is not torch.float32 or not _special(weight, bias) or _records(x, weight):
        return stock_linear(x, weight, bias)
    flat, transposed = x.reshape(rows, inputs), not weight.is_contiguous()
    shape, threads = (rows, outputs, inputs), torch.get_num_threads()
    found = way(*shape, threads=threads, transposed=transposed, columns=_columns(flat))
    if found == "torch":
        return stock_linear(x, weight, bias)
    return _compute(found, flat, weight, bias).view(*x.shape[:-1], outputs)


def quick(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """A faster forward of a plain linear map; None where there is none, as for quantised or wrapped ones.

    It reads the module's weight at each call, so the module may be changed in between.
    """
    if type(module) is nn.Linear:
        plain: nn.Linear = module
        if _special(plain.weight, plain.bias):
            return lambda x: linear(x, plain.weight, plain.bias)
    if type(module) is Conv1D and _special(module.weight.t(), module.bias):
        conv: Any = module
        return lambda x: linear(x, conv.weight.t(), conv.bias)
    return None


def _special(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether this is a plain float32 weight in CPU memory."""
    return (
        type(weight) in PLAIN
        and weight.dtype is torch.float32
        and weight.is_cpu
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and (bias is None or (type(bias) in PLAIN and bias.dtype is torch.float32 and bias.is_cpu))
    )


def _records(x: Tensor, weight: Tensor) -> bool:
    """Whether gradients or autocasting want torch's own product."""
    return (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)) or torch.is_autocast_enabled("cpu")


def _columns(x: Tensor) -> bool:
    """Whether a matrix [rows, K] lies in memory as [K, rows]."""
    return x.stride() == (1, x.shape[0])


def _right(x: Tensor) -> Tensor:
    """The right factor of a swapped product: [rows, K] -> [K, rows]; what another one left is as it should be."""
    return (x if _columns(x) else x.contiguous()).t()


def _compute(found: Way, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """One product by the way found: [rows, K] -> [rows, N]."""
    if found == "swap":
        if bias is None:
            return torch.mm(weight, _right(x)).t()
        return torch.addmm(bias.unsqueeze(1), weight, _right(x)).t()
    if found == "onednn":
        out: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
        return out
    if found == "torch":
        return stock_linear(x, weight, bias)
    outputs, inputs = weight.shape
    if found == "blocks":
        parts = math.gcd(outputs, 4)
        blocks = weight.view(parts, outputs // parts, inputs).transpose(1, 2)
        out = torch.bmm(x.expand(parts, *x.shape), blocks).transpose(0, 1).reshape(len(x), outputs)
        return out if bias is None else out.add_(bias)
    if not weight.is_contiguous():
        halves = torch.bmm(x.reshape(2, 1, inputs // 2), weight.t().view(2, inputs // 2, outputs))
        return torch.add(halves[0], halves[1]) if bias is None else torch.add(halves[0], halves[1]).add_(bias)
    parts = math.gcd(outputs, 8)
    blocks = weight.view(parts, outputs // parts, inputs)
    # written with strides: with any other stride of the last dimension BLAS takes a path several times slower
    column = x.reshape(inputs).contiguous().as_strided((parts, inputs, 1), (0, 1, inputs))
    if bias is None:
        return torch.bmm(blocks, column).view(1, outputs)
    return torch.baddbmm(bias.view(parts, outputs // parts, 1), blocks, column).view(1, outputs)


def join(parameters: list[nn.Parameter]) -> Tensor:
    """Lay parameters one behind the other along their first dimension: [sum N, ...], of which they become views.

    Their values and identity stay; if they are neighbours in memory already, nothing moves.
    """
    first, end, neighbours = parameters[0], parameters[0].data_ptr(), True
    for p in parameters:
        same = p.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        neighbours = neighbours and same and p.is_contiguous() and p.data_ptr() == end
        end = p.data_ptr() + p.nbytes
    shape = (sum(len(p) for p in parameters), *first.shape[1:])
    if neighbours:
        return first.data.as_strided(shape, first.stride())
    whole = torch.cat([p.data for p in parameters])
    at = 0
    for p in parameters:
        p.data = whole[at : at + len(p)]
        at += len(p)
    return whole


def shared_memory(model: nn.Module) -> set[int]:
    """Addresses of plain parameters whose memory another one uses too, such as tied ones."""
    found: set[int] = set()
    before, reach = 0, 0
    every = (p for _, p in model.named_parameters(remove_duplicate=False))
    spans = [(p.data_ptr(), p.nbytes) for p in every if type(p) is nn.Parameter and not p.is_meta]
    for start, size in sorted(spans):
        if start < reach:
            found |= {before, start}
        if start + size > reach:
            before, reach = start, start + size
    return found
