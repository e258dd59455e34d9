"""How far a fused layer is from the stock layer that it stands in for, on random states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from dlbench.backbones import Backbone
from dlbench.engine.arguments import kind_of, rotary_of
from dlbench.engine.debts import Owed
from dlbench.engine.keyvalues import halves

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}
"""Largest difference to the stock layer, relative to what the layer adds to its row."""


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
    """Largest difference between a layer's fused step and the stock layer, in units of the tolerance, and where it is.

    Three rows read a prompt and take one step, each with and without a mask; their states are small, plain and large,
    so that no epsilon hides.
    """
    gaps = list(_gaps(layer, step, backbone, index))
    return next((g for g in gaps if g[0] != g[0]), max(gaps))  # NaN is worse than any number


def _gaps(layer: Any, step: Step, backbone: Backbone, index: int) -> Iterator[tuple[float, str]]:
    length, like = 7, next(layer.parameters())
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

    first, last = slice(length), slice(length, None)
    before = mask[..., :length] & torch.ones(length, length, dtype=torch.bool, device=like.device).tril()
    before |= torch.eye(length, dtype=torch.bool, device=like.device)  # a row that sees nothing would be NaN
    prompt: tuple[Tensor, ...] = ()
    for seen in (before, None):
        stock, fused = Past(), Past()
        expected = layer.forward(states[:, first], **arguments(first, stock, seen))
        if step.several:
            got = step(states[:, first], **arguments(first, fused, seen))
            yield gap(got, expected, states[:, first]), "the output of several tokens is"
            yield _apart(fused, stock), "keys and values of several tokens are"
        prompt = stock.last
    hidden, alone = states[:, last], slice(1, 2)
    for seen in (mask, None):
        stock, fused, filled = (Past(*prompt) for _ in range(3))
        expected = layer.forward(hidden, **arguments(last, stock, seen))
        got = step(hidden, **arguments(last, fused, seen))
        yield gap(got, expected, hidden), "the output is"
        step.fill(hidden, **arguments(last, filled, seen))
        for past, what in ((fused, "keys and values are"), (filled, "keys and values alone are")):
            yield _apart(past, stock), what
    if step.merges:  # the last token of the prompt, as if its keys and values were still owed
        known = arguments(slice(length - 1, length), Past())
        owed = Owed(states[:, length - 1], known.get("position_embeddings"), (torch.arange(3),) * 2)
        merged = Past(*prompt)
        got = step(hidden, owed=owed, **arguments(last, merged))
        yield gap(got, expected, hidden), "the output beside owed keys and values is"
        pairs = zip(merged.kept, (x[:, :, -1:] for x in prompt), strict=True)
        yield max(gap(a, b) for a, b in pairs), "owed keys and values are"
    one = Past(*(x[alone] for x in prompt))
    got = step(hidden[alone], **arguments(last, one, rows=alone))
    yield gap(got, expected[alone], hidden[alone]), "the output of one row is"


def _apart(past: Past, stock: Past) -> float:
    """How far what was written to one is from what was written to the other."""
    return max(gap(a, b) for a, b in zip(past.last, stock.last, strict=True))


def gap(got: Tensor, expected: Tensor, origin: Tensor | float = 0.0) -> float:
    """Largest difference of any row over what is tolerated: a part of what changes from the origin, and rounding."""
    over = tuple(range(1, got.ndim))
    tolerated = TOLERANCE[got.dtype] * (expected - origin).abs().amax(over)
    rounding = 4 * torch.finfo(got.dtype).eps * expected.abs().amax(over) + torch.finfo(got.dtype).tiny
    return float(((got - expected).abs().amax(over) / (tolerated + rounding)).max())


def _angles(backbone: Backbone, states: Tensor, positions: Tensor, index: int) -> tuple[Tensor, ...] | None:
    """Rotary angles at these positions, of the model's own making."""
    rotary = rotary_of(backbone)
    if rotary is None:
        return None
    found: tuple[Tensor, ...] = rotary(states, positions, *kind_of(backbone, rotary, index))
    return found
