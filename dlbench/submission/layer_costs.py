"""What tokens cost on a backbone, by its sizes alone: FLOPs and shares are recomputed from routes without the model.

Conventions are those of `dlbench.engine.flops.costs`, whose figures these are; `verify` compares them with the model's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dlbench.records.jsonl import Part

_Layers = Annotated[tuple[Annotated[int, Field(ge=0, le=10**15)], ...], Field(min_length=1, max_length=10_000)]
Ints = NDArray[np.int64]
_PER_LAYER = ("attention", "mlp", "fill", "attends", "windows", "per_key", "expansion")


@dataclass(frozen=True)
class RouteCost:
    """What the routes of one document cost in decoding."""

    layers: int
    """FLOPs of linear maps."""
    attention: int
    """FLOPs over the true context."""
    fills: int
    """FLOPs of the keys and values of all (token, layer) that skipped attention: the most that they can cost."""
    depths: NDArray[np.float64]
    """Executed layers of each forward."""


class LayerCosts(Part):
    """FLOPs per token on a backbone, per layer where that is a tuple.

    Attributes:
        attention, mlp: of the linear maps of each half of a layer.
        fill: of the keys and values that a skipped token owes.
        attends: whether the layer has attention.
        windows: its window; None where it has none.
        per_key: of one token's scores and weighted sum, per key.
        expansion: spent on each key in every forward, however many tokens attend to it.
        head: of the exit head; `input`: of projections before the layers; `vocabulary`: of the LM head alone.
    """

    attention: _Layers
    mlp: _Layers
    fill: _Layers
    attends: Annotated[tuple[bool, ...], Field(max_length=10_000)]
    windows: Annotated[tuple[Annotated[int, Field(ge=1, le=10**9)] | None, ...], Field(max_length=10_000)]
    per_key: _Layers
    expansion: _Layers
    head: Annotated[int, Field(ge=0, le=10**15)]
    input: Annotated[int, Field(ge=0, le=10**15)]
    vocabulary: Annotated[int, Field(ge=0, le=10**15)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len({len(getattr(self, name)) for name in _PER_LAYER}) > 1:
            raise ValueError("layers are counted differently")
        if not all(a + m for a, m in zip(self.attention, self.mlp, strict=True)):
            raise ValueError("a layer costs nothing")
        if self.vocabulary > self.head:
            raise ValueError("the LM head costs more than the exit head, which contains it")
        return self

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.mlp)

    @property
    def parts(self) -> Ints:
        """FLOPs by route digit, from 0 to 3, and layer: [4, depth]."""
        attention, mlp = np.array(self.attention, dtype=np.int64), np.array(self.mlp, dtype=np.int64)
        return np.stack([0 * mlp, attention, mlp, attention + mlp])

    def dense(self, prompt: int, generated: int) -> int:
        """Decode FLOPs of full depth for `generated` tokens after a prompt of `prompt` tokens."""
        forwards = max(generated - 1, 0)
        whole = self.route_cost((("3" * self.depth, forwards),) if forwards else (), prompt)
        return whole.layers + whole.attention + self.heads(forwards)

    def heads(self, forwards: int) -> int:
        """FLOPs of the projections around the layers, where every forward computes its logits once, at the end."""
        return forwards * (self.head + self.input)

    def prompt(self, tokens: int) -> int:
        """FLOPs of reading a prompt at full depth; the logits of its last token are computed."""
        linear = int(self.parts[3].sum()) + self.input + self.head - self.vocabulary
        keys = sum(self.per_key) * tokens + sum(self.expansion)
        return tokens * linear + self.vocabulary + tokens * keys

    def route_cost(self, routes: Sequence[tuple[str, int]], prompt: int) -> RouteCost:
        """Return what routes cost, where each forward makes one token.

        Args:
            routes: a digit per layer, and the number of consecutive forwards that ran them.
            prompt: tokens before the first of them.
        """
        if not routes:
            return RouteCost(0, 0, 0, np.zeros(0))
        codes = np.stack([np.frombuffer(route.encode(), dtype=np.uint8) - ord("0") for route, _ in routes])
        times = np.array([n for _, n in routes], dtype=np.int64)
        parts, columns = self.parts, np.arange(self.depth)
        attends = np.array(self.attends)
        attended = (codes & 1 > 0) & attends
        past = prompt + np.arange(int(times.sum()), dtype=np.int64)
        run_of = np.repeat(np.arange(len(times)), times)
        per_key = np.array(self.per_key, dtype=np.int64) + np.array(self.expansion, dtype=np.int64)
        attention = 0
        for window in set(self.windows):
            of_window = np.array([one == window for one in self.windows])
            each_key = (attended * per_key)[:, of_window].sum(1)[run_of]
            attention += int((each_key * ((past if window is None else np.minimum(past, window - 1)) + 1)).sum())
        each = parts[codes, columns]
        owed = np.where(attends & ~attended, np.array(self.fill, dtype=np.int64), 0).sum(1)
        depths = (each / parts[3]).sum(1)
        return RouteCost(
            layers=int((each.sum(1) * times).sum()),
            attention=attention,
            fills=int((owed * times).sum()),
            depths=depths[run_of],
        )
