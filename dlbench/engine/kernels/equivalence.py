"""Check on random states that a fused layer is as exact as the stock layer that it replaces.

Two layers that compute the same thing in another order differ by rounding, and by how much depends on the processor,
its libraries and the weights: no fixed tolerance tells rounding from an error. So both are compared with the stock
layer in float64, and the fused layer may be twice as far from that as the stock layer is.

Shape letters: B rows, G key/value heads, T positions, D head width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from dlbench.engine.interfaces import RunSome
from dlbench.engine.kv.past_tokens import Owed
from dlbench.engine.kv.storage import halves
from dlbench.models.attention import kind_of, rotary_of
from dlbench.models.backbone import Backbone

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2, torch.float16: 1e-2}
"""Largest difference allowed between two computations of the same logits, relative to the largest of their row."""
FARTHER = 2.0
"""A fused layer may be this many times as far from the exact result as the stock layer."""


class Exact(TorchFunctionMode):
    """Runs every operation in float64, whatever the dtypes of its arguments; the arguments are not changed."""

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
"""A result of the stock layer, and the same result in float64."""


class CheckedStep(Protocol):
    """What replaces a layer, as far as the check calls it; see `FusedLayer`."""

    cache: str

    @property
    def several(self) -> bool: ...

    @property
    def merges(self) -> bool: ...

    @property
    def run_some(self) -> RunSome | None: ...

    def __call__(self, hidden: Tensor, **kwargs: Any) -> Tensor: ...

    def fill(self, hidden: Tensor, **kwargs: Any) -> None: ...


@final
class ProbeCache:
    """A minimal cache of one layer: given keys and values, followed by those that the layer writes, [B, G, T, D]."""

    def __init__(self, *first: Tensor) -> None:
        self.first = self.last = first

    def update(self, *states: Any) -> tuple[Tensor, ...]:
        self.last = states[:2]
        return tuple(torch.cat(x, 2) for x in zip(self.first, self.last, strict=True)) if self.first else self.last

    def append(self, new: Tensor, layer: int, past: Any = None, of: Tensor | None = None) -> list[tuple[Any, ...]]:
        keys, values = (x.unsqueeze(2) for x in halves(new))
        count = len(self.first[0]) if self.first else len(keys)
        self.kept = keys[count:], values[count:]
        seen = self.update(keys[:count], values[:count], layer)
        return [(slice(None), *(x if of is None else x[of] for x in seen))]


def difference(layer: Any, step: CheckedStep, backbone: Backbone, index: int) -> tuple[float, str]:
    """The largest distance of a fused layer from the exact result, over the distance allowed, and what it is of.

    Three rows read a prompt and take one decode step, each with and without a mask. The states of the rows are small,
    ordinary and large, so that a wrong epsilon shows.
    """
    gaps = list(_gaps(_Comparison(layer, step, backbone, index)))
    return next((g for g in gaps if g[0] != g[0]), max(gaps))  # NaN is worse than any number


_LENGTH = 7
_PROMPT, _TOKEN = slice(_LENGTH), slice(_LENGTH, None)
"""Columns of the prompt, and of the decoded token."""
Gaps = Iterator[tuple[float, str]]
"""Distances over what is allowed, and what each is of."""


def _gaps(comparison: _Comparison) -> Gaps:
    """All distances; the last mask, none, gives the keys, values and outputs that the later checks build on."""
    step, prompt = comparison.step, list[Pair]()
    for mask in (comparison.prompt_mask, None):
        expected, prompt = comparison.stock(_PROMPT, mask)
        if step.several:
            yield from comparison.several_tokens(mask, expected, prompt)
    written = [x for x, _ in prompt]
    for mask in (comparison.mask, None):
        expected, new = comparison.stock(_TOKEN, mask, *written)
        yield from comparison.one_token(mask, written, expected, new)
        if step.run_some is not None:
            yield from comparison.some_rows(step.run_some, mask, written, expected, new)
    if step.merges:
        yield from comparison.owed_tokens(written, expected, prompt)
    yield from comparison.one_row(written, expected)


@final
class _Comparison:
    """A stock layer and its fused step, on the same random states."""

    def __init__(self, layer: Any, step: CheckedStep, backbone: Backbone, index: int) -> None:
        self.layer, self.step = layer, step
        like = next(layer.parameters())
        self._gap = partial(gap, terms=max(max(p.shape) for p in layer.parameters()))
        random = torch.Generator().manual_seed(index)
        sizes = torch.tensor([0.02, 1.0, 30.0])
        states = torch.randn(3, _LENGTH + 1, backbone.width, generator=random) * sizes[:, None, None]
        self.states = states.to(like)
        starts = torch.tensor([0, 3, 40]).clamp_(max=max(0, backbone.context - _LENGTH - 1))
        self.positions = (starts[:, None] + torch.arange(_LENGTH + 1)).to(like.device)
        self.angles = _angles(backbone, self.states, self.positions, index)
        self.mask = torch.ones(3, 1, 1, _LENGTH + 1, dtype=torch.bool, device=like.device)
        self.mask[1, ..., :3] = False
        square = torch.ones(_LENGTH, _LENGTH, dtype=torch.bool, device=like.device)
        self.prompt_mask = self.mask[..., :_LENGTH] & square.tril()
        # a row that sees nothing would be NaN
        self.prompt_mask |= torch.eye(_LENGTH, dtype=torch.bool, device=like.device)

    def _arguments(
        self, columns: slice, cache: ProbeCache, mask: Tensor | None = None, rows: slice = slice(None)
    ) -> dict[str, Any]:
        """The layer's arguments for some columns and rows."""
        kwargs: dict[str, Any] = {
            self.step.cache: cache,
            "attention_mask": mask,
            "position_ids": self.positions[rows, columns],
        }
        if self.angles is not None:
            kwargs["position_embeddings"] = tuple(a[rows, columns] for a in self.angles)
        return kwargs

    def stock(self, columns: slice, mask: Tensor | None, *past: Tensor) -> tuple[Pair, list[Pair]]:
        """The stock layer's output, and the keys and values that it writes, each also in float64."""
        plain, exact = ProbeCache(*past), ProbeCache(*past)
        out = self.layer.forward(self.states[:, columns], **self._arguments(columns, plain, mask))
        with Exact():
            truth = self.layer.forward(self.states[:, columns], **self._arguments(columns, exact, mask))
        return (out, truth), list(zip(plain.last, exact.last, strict=True))

    def _largest(self, got: Sequence[Tensor], expected: Sequence[Pair]) -> float:
        """The larger distance of keys and values."""
        return max(self._gap(one, *pair) for one, pair in zip(got, expected, strict=True))

    def several_tokens(self, mask: Tensor | None, expected: Pair, prompt: Sequence[Pair]) -> Gaps:
        """The prompt, read at once."""
        cache = ProbeCache()
        got = self.step(self.states[:, _PROMPT], **self._arguments(_PROMPT, cache, mask))
        yield self._gap(got, *expected), "the output of several tokens is"
        yield self._largest(cache.last, prompt), "keys and values of several tokens are"

    def one_token(self, mask: Tensor | None, written: Sequence[Tensor], expected: Pair, new: Sequence[Pair]) -> Gaps:
        """The decode step, and its keys and values without the rest."""
        hidden = self.states[:, _TOKEN]
        run, filled = ProbeCache(*written), ProbeCache(*written)
        got = self.step(hidden, **self._arguments(_TOKEN, run, mask))
        yield self._gap(got, *expected), "the output is"
        self.step.fill(hidden, **self._arguments(_TOKEN, filled, mask))
        yield self._largest(run.last, new), "keys and values are"
        yield self._largest(filled.last, new), "keys and values alone are"

    def some_rows(
        self, run: RunSome, mask: Tensor | None, written: Sequence[Tensor], expected: Pair, new: Sequence[Pair]
    ) -> Gaps:
        """The decode step of two of the rows, and of one; the others' keys and values are made, too."""
        hidden = self.states[:, _TOKEN]
        for slots in ([0, 2], [1]):
            cache, rest = ProbeCache(*written), [i for i in range(3) if i not in slots]
            got, _ = run(hidden, np.array(slots), None, self._arguments(_TOKEN, cache, mask), True)
            yield self._gap(got[slots], *(x[slots] for x in expected)), "the output of some rows is"
            yield 0.0 if torch.equal(got[rest], hidden[rest]) else float("inf"), "what rows that skip it keep is"
            yield self._largest(cache.last, new), "keys and values beside some rows are"

    def owed_tokens(self, written: Sequence[Tensor], expected: Pair, prompt: Sequence[Pair]) -> Gaps:
        """The decode step, with the last token of the prompt as if its keys and values were still missing."""
        last = slice(_LENGTH - 1, _LENGTH)
        angles = self._arguments(last, ProbeCache()).get("position_embeddings")
        owed = Owed(self.states[:, _LENGTH - 1], angles, (torch.arange(3),) * 2)
        cache = ProbeCache(*written)
        got = self.step(self.states[:, _TOKEN], owed=owed, **self._arguments(_TOKEN, cache))
        yield self._gap(got, *expected), "the output beside owed keys and values is"
        ends = [(x[:, :, -1:], exact[:, :, -1:]) for x, exact in prompt]
        yield self._largest(cache.kept, ends), "owed keys and values are"

    def one_row(self, written: Sequence[Tensor], expected: Pair) -> Gaps:
        """The decode step of a single row."""
        alone = slice(1, 2)
        cache = ProbeCache(*(x[alone] for x in written))
        got = self.step(self.states[alone, _TOKEN], **self._arguments(_TOKEN, cache, rows=alone))
        yield self._gap(got, *(x[alone] for x in expected)), "the output of one row is"


def gap(got: Tensor, stock: Tensor, exact: Tensor, terms: int) -> float:
    """Largest distance of any row from the exact result, over `FARTHER` times the stock layer's own distance.

    Distances are root mean squares over a row. The stock layer's distance counts as at least the expected rounding:
    results are rounded in their dtype, and sums of `terms` numbers in float32, whose error grows with the square root
    of that number (Higham & Mary, SIAM Journal on Scientific Computing 41, 2019).

    Args:
        got: by the fused layer, [rows, ...].
        stock: by the stock layer, of the same shape.
        exact: by the stock layer in float64.
        terms: numbers in the longest sum.
    """
    ours, theirs, size = (_size(x) for x in (got.double() - exact, stock.double() - exact, exact))
    rounding = torch.finfo(got.dtype).eps + terms**0.5 * torch.finfo(torch.float32).eps
    allowed = torch.maximum(theirs, rounding * size) + torch.finfo(got.dtype).tiny
    return float((ours / (FARTHER * allowed)).max())


def _size(x: Tensor) -> Tensor:
    """Root mean square of each row: [rows]."""
    return x.flatten(1).square().mean(1).sqrt()


def _angles(backbone: Backbone, states: Tensor, positions: Tensor, index: int) -> tuple[Tensor, ...] | None:
    """Rotary angles at these positions, by the model's own module."""
    rotary = rotary_of(backbone)
    if rotary is None:
        return None
    angles: tuple[Tensor, ...] = rotary(states, positions, *kind_of(backbone, rotary, index))
    return angles
