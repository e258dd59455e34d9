"""Linear maps of few rows, as in decode steps, faster than torch's own on a CPU.

For float32 on a CPU torch passes `x @ weight.T` to BLAS unchanged, and BLAS blocks a handful of rows badly; unless it
is Intel's own (MKL) on an Intel processor, it does not even use threads for one row. Here the same product is computed
in one of these ways:

- split: the weight in parts, one batched product: threaded, and bound by memory only;
- swap: `weight @ x.T`;
- blocks: as split, with x on the left, in parts that fit a core's cache;
- onednn: the kernel that torch's compiler calls for a linear layer;
- native: a function in C, where it can be compiled (`dlbench.engine.kernels.native`).

The way depends on the shape, the number of threads, the kind of processor and whether the function in C is there, never
on a measurement, so the same call rounds alike in every run. Any other dtype or device, and anything that records
gradients, goes to `torch.nn.functional.linear`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack
from torch.nn.functional import linear as stock_linear
from transformers.pytorch_utils import Conv1D

from dlbench.engine.flops.op_counter import PLAIN
from dlbench.engine.kernels.native import native
from dlbench.system import cpu

Way = Literal["split", "swap", "blocks", "onednn", "native", "torch"]
Kind = Literal["intel", "avx2", "other"]

MOST_ROWS = 128
"""More rows than these are left to torch."""
NATIVE_ROWS = 16
"""With more rows than these the native function is slower than other ways."""
_ONEDNN: Any = None
if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
    _ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def _kind() -> Kind:
    if torch.backends.mkl.is_available() and cpu.vendor() == "GenuineIntel":  # type: ignore[no-untyped-call]
        return "intel"
    return "avx2" if torch.backends.cpu.get_cpu_capability() == "AVX2" else "other"


KIND = _kind()
"""The kind of processor, each with its own fastest ways: Intel's with MKL as BLAS, others without AVX-512, others."""


def way(
    rows: int,
    outputs: int,
    inputs: int,
    *,
    threads: int,
    transposed: bool = False,
    columns: bool = False,
    kind: Kind | None = None,
    compiled: bool | None = None,
) -> Way:
    """The fastest way to multiply [rows, inputs] with [outputs, inputs] in float32 on a CPU.

    Args:
        rows: rows of the left factor.
        outputs: rows of the weight.
        inputs: columns of the weight.
        threads: threads that torch may use.
        transposed: whether the weight lies in memory as [inputs, outputs].
        columns: whether the left factor lies in memory as [inputs, rows], as the result of "swap" does.
        kind: of processor; None: this machine's.
        compiled: whether there is a native function; None: whether this machine has one.
    """
    if rows > MOST_ROWS or rows < 1:
        return "torch"
    small = outputs * inputs <= 1 << 18  # 1 MiB
    rest: Way = "torch" if _ONEDNN is None or (small and threads == 1) else "onednn"
    if (kind := kind or KIND) == "intel":
        if transposed or rows <= 3:
            return "torch"
        if rows > 48:
            return "torch" if small else rest
        if small:
            return "torch" if rows <= 12 and not columns and (threads == 1 or inputs > outputs) else "swap"
        return "swap" if rows >= 16 and outputs <= 4 * inputs else rest  # an argmax over swapped logits is slow
    if small and threads > 1 and rows % 16 == 0:  # BLAS blocks the swapped product in 16 columns
        return "swap"
    if transposed:
        if rows > 1:
            return rest
        return "torch" if threads == 1 or inputs % 2 else "split"
    if kind == "avx2" and rows <= NATIVE_ROWS and (native() is not None if compiled is None else compiled):
        return "native"
    if rows == 1:
        return rest if outputs % 2 else "split"
    if kind == "avx2" and not small:  # oneDNN's kernels are made for wider registers
        return "swap" if rows <= 4 else "blocks"
    if rows <= 8 and rows * inputs < 1 << 12:  # 16 KiB: fits the innermost cache
        return "swap"
    return "blocks" if small and threads > 1 else rest


class Product:
    """x [rows, K] -> x @ weight.T + bias [rows, N], possibly as a transposed view.

    The weight is [N, K], contiguous or the transpose of a contiguous matrix [K, N].
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.outputs, self.inputs = weight.shape
        self.transposed = not weight.is_contiguous()
        self.special = _special(weight, bias)

    def part(self, outputs: slice) -> Product:
        """The product for some of the outputs."""
        return Product(self.weight[outputs], None if self.bias is None else self.bias[outputs])

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """The product, plus `onto` [rows, N] if given; `onto` is not changed."""
        rows = x.shape[0]
        if onto is not None and self.bias is None and not self.special:
            return torch.addmm(onto, x, self.weight.t())
        chosen: Way = "torch"
        if self.special and rows <= MOST_ROWS:
            shape, threads = (rows, self.outputs, self.inputs), torch.get_num_threads()
            chosen = way(*shape, threads=threads, transposed=self.transposed, columns=_columns(x))
        if chosen == "native":
            return _native(x, self.weight, self.bias, onto)
        out = _compute(chosen, x, self.weight, self.bias)
        # not within the product: in float32 some BLAS add term by term to `onto`, and round at its size each time
        return out if onto is None else torch.add(onto, out)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As torch.nn.functional.linear: x [..., K], weight [N, K], bias [N] -> [..., N], not always contiguous."""
    outputs, inputs = weight.shape
    rows = x.numel() // inputs if inputs else 0
    if not 0 < rows <= MOST_ROWS or x.dtype is not torch.float32 or not _special(weight, bias) or _records(x, weight):
        return stock_linear(x, weight, bias)
    flat, transposed = x.reshape(rows, inputs), not weight.is_contiguous()
    shape, threads = (rows, outputs, inputs), torch.get_num_threads()
    chosen = way(*shape, threads=threads, transposed=transposed, columns=_columns(flat))
    if chosen == "torch":
        return stock_linear(x, weight, bias)
    return _compute(chosen, flat, weight, bias).view(*x.shape[:-1], outputs)


def quick(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """A faster forward of a plain linear module; None for others, such as quantised or wrapped ones.

    It reads the module's weight at each call, so the weight may be changed in between.
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
    """Whether gradients or autocasting need torch's own product."""
    return (torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)) or torch.is_autocast_enabled("cpu")


def _columns(x: Tensor) -> bool:
    """Whether a matrix [rows, K] lies in memory as [K, rows]."""
    return x.stride() == (1, x.shape[0])


def _right(x: Tensor) -> Tensor:
    """The right factor of a swapped product: [rows, K] -> [K, rows], without a copy if it lies so in memory."""
    return (x if _columns(x) else x.contiguous()).t()


def _native(x: Tensor, weight: Tensor, bias: Tensor | None, onto: Tensor | None = None) -> Tensor:
    """Compute a product by the native function: [rows, K] -> [rows, N], plus `onto` [rows, N] if given."""
    if _len_torch_dispatch_stack() or (compiled := native()) is None:  # such as a counter, which would not see it
        out = stock_linear(x, weight, bias)
        return out if onto is None else torch.add(onto, out)
    return compiled(x.contiguous(), weight, bias, None if onto is None else onto.contiguous())


def _compute(chosen: Way, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute a product in a given way: [rows, K] -> [rows, N]."""
    if chosen == "native":
        return _native(x, weight, bias)
    if chosen == "swap":
        if bias is None:
            return torch.mm(weight, _right(x)).t()
        return torch.addmm(bias.unsqueeze(1), weight, _right(x)).t()
    if chosen == "onednn":
        out: Tensor = _ONEDNN(x, weight, bias, "none", [], "")
        return out
    if chosen == "torch":
        return stock_linear(x, weight, bias)
    outputs, inputs = weight.shape
    if chosen == "blocks":
        parts = _parts(outputs)
        blocks = weight.view(parts, outputs // parts, inputs).transpose(1, 2)
        out = torch.bmm(x.expand(parts, *x.shape), blocks).transpose(0, 1).reshape(len(x), outputs)
        return out if bias is None else out.add_(bias)
    if not weight.is_contiguous():
        halves = torch.bmm(x.reshape(2, 1, inputs // 2), weight.t().view(2, inputs // 2, outputs))
        return torch.add(halves[0], halves[1]) if bias is None else torch.add(halves[0], halves[1]).add_(bias)
    parts = math.gcd(outputs, 8)
    blocks = weight.view(parts, outputs // parts, inputs)
    # with explicit strides: for any other stride of the last dimension BLAS takes a path several times slower
    column = x.reshape(inputs).contiguous().as_strided((parts, inputs, 1), (0, 1, inputs))
    if bias is None:
        return torch.bmm(blocks, column).view(1, outputs)
    return torch.baddbmm(bias.view(parts, outputs // parts, 1), blocks, column).view(1, outputs)


def _parts(outputs: int) -> int:
    """Into how many blocks a weight is cut: four for the threads, and more where each still has 320 rows."""
    parts = math.gcd(outputs, 4)
    while outputs % (2 * parts) == 0 and outputs // (2 * parts) >= 320:
        parts *= 2
    return parts


def join(parameters: list[nn.Parameter]) -> Tensor:
    """Concatenate parameters along their first dimension, [sum N, ...], and make them views of the result.

    Their values and identity stay; if they are adjacent in memory already, nothing is copied.
    """
    first, end, adjacent = parameters[0], parameters[0].data_ptr(), True
    for p in parameters:
        same = p.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        adjacent = adjacent and same and p.is_contiguous() and p.data_ptr() == end
        end = p.data_ptr() + p.nbytes
    shape = (sum(len(p) for p in parameters), *first.shape[1:])
    if adjacent:
        return first.data.as_strided(shape, first.stride())
    whole = torch.cat([p.data for p in parameters])
    at = 0
    for p in parameters:
        p.data = whole[at : at + len(p)]
        at += len(p)
    return whole


def shared_memory(model: nn.Module) -> set[int]:
    """Addresses of parameters that share memory with others, such as tied ones."""
    shared: set[int] = set()
    before, reach = 0, 0
    every = (p for _, p in model.named_parameters(remove_duplicate=False))
    spans = [(p.data_ptr(), p.nbytes) for p in every if type(p) is nn.Parameter and not p.is_meta]
    for start, size in sorted(spans):
        if start < reach:
            shared |= {before, start}
        if start + size > reach:
            before, reach = start, start + size
    return shared
