"""Whether a fused layer is as exact as the stock layer that it stands in for, on random states.

Two layers that compute the same thing in another order differ by rounding, and by how much depends on the processor,
its libraries and the weights: no fixed tolerance tells rounding from a fault. So both are held against the stock layer
in float64, and the fused one may be twice as far from it as the stock layer itself is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from dlbench.engine.kv.policies import Owed
from dlbench.engine.kv.storage import halves
from dlbench.engine.layers.call_args import kind_of, rotary_of
from dlbench.models.backbone import Backbone

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}
"""Largest difference between two ways to the same logits, relative to the largest of their row."""
FARTHER = 2.0
"""How much farther from the exact result than the stock layer a fused one may be."""


class Exact(TorchFunctionMode):
    """Runs every operation in float64, whatever dtype it is given or asks for; what is given stays as it is."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = tree_map(_exact, (tuple(args), dict(kwargs or {})))
        return (Tensor.double if func is Tensor.float else func)(*args, **kwargs)


def _exact(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.double() if x.is_floating_point() else x
    return torch.float64 if isinstance(x, torch.dtype) and x.is_floating_point else x


Pair = tuple[Tensor, Tensor]
"""A result of the stock layer, and the same in float64."""


class Step(Protocol):
    """What stands in for one layer, as FusedLayer does."""

    cache: str

    @property
    def several(self) -> bool: ...

    @property
    def merges(self) -> bool: ...

    def __call__(self, hidden: Tensor, **kwargs: Any) -> Tensor: ...

    def fill(self, hidden: Tensor, **kwargs: Any) -> None: ...


class Past:
    """The least of a cache: what one layer wrote first, and behind it what it wrote last; K and V are [B, G, T, D]."""

    def __init__(self, *first: Tensor) -> None:
        self.first = self.last = first

    def update(self, *states: Any) -> tuple[Tensor, ...]:
        self.last = states[:2]
        return tuple(torch.cat(x, 2) for x in zip(self.first, self.last, strict=True)) if self.first else self.last

    def append(self, new: Tensor, layer: int, past: Any = None) -> list[tuple[Any, ...]]:
        keys, values = (x.unsqueeze(2) for x in halves(new))
        count = len(self.first[0]) if self.first else len(keys)
        self.kept = keys[count:], values[count:]
        return [(slice(None), *self.update(keys[:count], values[:count], layer))]


def difference(layer: Any, step: Step, backbone: Backbone, index: int) -> tuple[float, str]:
    """How far a layer's fused step is from the exact result, in units of what is allowed, and where it is farthest.

    Three rows read a prompt and take one step, each with and without a mask; their states are small, plain and large,
    so that no epsilon hides.
    """
    gaps = list(_gaps(layer, step, backbone, index))
    return next((g for g in gaps if g[0] != g[0]), max(gaps))  # NaN is worse than any number


def _gaps(layer: Any, step: Step, backbone: Backbone, index: int) -> Iterator[tuple[float, str]]:
    length, like = 7, next(layer.parameters())
    off = partial(gap, terms=max(max(p.shape) for p in layer.parameters()))
    random = torch.Generator().manual_seed(index)
    sizes = torch.tensor([0.02, 1.0, 30.0])
    states = (torch.randn(3, length + 1, backbone.width, generator=random) * sizes[:, None, None]).to(like)
    starts = torch.tensor([0, 3, 40]).clamp_(max=max(0, backbone.context - length - 1))
    positions = (starts[:, None] + torch.arange(length + 1)).to(like.device)
    angles = _angles(backbone, states, positions, index)
    mask = torch.ones(3, 1, 1, length + 1, dtype=torch.bool, device=like.device)
    mask[1, ..., :3] = False

    def arguments(columns: slice, past: Past, mask: Tensor | None = None, rows: slice = slice(None)) -> dict[str, Any]:
        found = {step.cache: past, "attention_mask": mask, "position_ids": positions[rows, columns]}
        return found if angles is None else {**found, "position_embeddings": tuple(a[rows, columns] for a in angles)}

    def stock(columns: slice, mask: Tensor | None, *past: Tensor) -> tuple[Pair, list[Pair]]:
        """What the stock layer makes, and the same in float64: the output, and the keys and values that it writes."""
        plain, exact = Past(*past), Past(*past)
        out = layer.forward(states[:, columns], **arguments(columns, plain, mask))
        with Exact():
            truth = layer.forward(states[:, columns], **arguments(columns, exact, mask))
        return (out, truth), list(zip(plain.last, exact.last, strict=True))

    def apart(got: Sequence[Tensor], expected: Sequence[Pair]) -> float:
        """How far the keys and values that were written are from the stock layer's."""
        return max(off(one, *pair) for one, pair in zip(got, expected, strict=True))

    first, last = slice(length), slice(length, None)
    before = mask[..., :length] & torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    before |= torch.eye(length, dtype=torch.bool, device=like.device)  # a row that sees nothing would be NaN
    prompt: list[Pair] = []
    for seen in (before, None):
        expected, prompt = stock(first, seen)
        if step.several:
            fused = Past()
            got = step(states[:, first], **arguments(first, fused, seen))
            yield off(got, *expected), "the output of several tokens is"
            yield apart(fused.last, prompt), "keys and values of several tokens are"
    written = [x for x, _ in prompt]
    hidden, alone = states[:, last], slice(1, 2)
    for seen in (mask, None):
        expected, new = stock(last, seen, *written)
        fused, filled = Past(*written), Past(*written)
        got = step(hidden, **arguments(last, fused, seen))
        yield off(got, *expected), "the output is"
        step.fill(hidden, **arguments(last, filled, seen))
        for past, what in ((fused, "keys and values are"), (filled, "keys and values alone are")):
            yield apart(past.last, new), what
    if step.merges:  # the last token of the prompt, as if its keys and values were still owed
        known = arguments(slice(length - 1, length), Past())
        owed = Owed(states[:, length - 1], known.get("position_embeddings"), (torch.arange(3),) * 2)
        merged = Past(*written)
        got = step(hidden, owed=owed, **arguments(last, merged))
        yield off(got, *expected), "the output beside owed keys and values is"
        ends = [(x[:, :, -1:], exact[:, :, -1:]) for x, exact in prompt]
        yield apart(merged.kept, ends), "owed keys and values are"
    one = Past(*(x[alone] for x in written))
    got = step(hidden[alone], **arguments(last, one, rows=alone))
    yield off(got, *(x[alone] for x in expected)), "the output of one row is"


def gap(got: Tensor, stock: Tensor, exact: Tensor, terms: int) -> float:
    """Largest distance of any row from the exact result, over `FARTHER` times the stock layer's own distance.

    Distances are root mean squares over a row. A stock result that happens to be nearer than rounding allows is taken
    to be as far as that: results are rounded in their dtype, and sums of `terms` numbers in float32, whose error grows
    with the root of their number (Higham & Mary, SIAM Journal on Scientific Computing 41, 2019).

    Args:
        got: by the fused layer, [rows, ...].
        stock: by the stock layer, of the same shape.
        exact: by the stock layer in float64.
        terms: of the longest sum.
    """
    ours, theirs, size = (_size(x) for x in (got.double() - exact, stock.double() - exact, exact))
    rounding = torch.finfo(got.dtype).eps + terms**0.5 * torch.finfo(torch.float32).eps
    allowed = torch.maximum(theirs, rounding * size) + torch.finfo(got.dtype).tiny
    return float((ours / (FARTHER * allowed)).max())


def _size(x: Tensor) -> Tensor:
    """Root mean square of each row: [rows]."""
    return x.flatten(1).square().mean(1).sqrt()


def _angles(backbone: Backbone, states: Tensor, positions: Tensor, index: int) -> tuple[Tensor, ...] | None:
    """Rotary angles at these positions, of the model's own making."""
    rotary = rotary_of(backbone)
    if rotary is None:
        return None
    found: tuple[Tensor, ...] = rotary(states, positions, *kind_of(backbone, rotary, index))
    return found
