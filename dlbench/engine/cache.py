"""Keys and values of all layers, preallocated; the cache owns the position.

A stock cache asks layer 0 how long it is, so skipping layer 0 breaks positions. Here layers never count: `advance`
does, once per forward. Rows of the batch that have finished are swapped behind the living ones, so that the living
stay contiguous and are handed out as views.

Shape letters: B rows, H key/value heads, T positions of the cache, D head width, W model width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

Slots = NDArray[np.int64]


class Written(Exception):
    """Keys and values are stored, nothing after that is wanted; raised through the stock layer, caught by the gate."""


class Companion(Protocol):
    """What else is kept per slot, and must move with it."""

    def move(self, target: Slots, source: Slots) -> None:
        """Slots `target` take what slots `source` held; both at once."""
        ...


def windows(config: Any, depth: int) -> list[int | None]:
    """Per layer, how many positions a token attends to, itself included; None for all."""
    stock = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]
    return stock if len(stock) == depth else [None] * depth


class RowCache(Cache):
    """K and V as [B, H, T, D] per layer; `seen` positions are filled, rows 0..alive-1 are alive."""

    is_compileable = False

    def __init__(self, windows: Sequence[int | None], rows: int, length: int) -> None:
        """Nothing is allocated before a layer writes.

        Args:
            windows: per layer, how many positions a token attends to, itself included; None for all.
            rows: B.
            length: T.
        """
        super().__init__(layers=[])
        self.windows, self.batch, self.length = windows, rows, length
        self.seen, self.alive = 0, rows
        self.order = np.arange(rows)
        """order[slot] = index of the wave's row that stands in this slot."""
        self.companion: Companion | None = None
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._scratch: dict[int, Tensor] = {}
        self._rows: Tensor | None = None
        self._columns: Tensor | None = None
        self._end: int | None = None

    # ---- what stock models ask of a cache

    @property
    def is_initialized(self) -> bool:
        return True

    @property
    def is_sliding(self) -> list[bool]:
        return [w is not None for w in self.windows]

    @property
    def is_linear(self) -> list[bool]:
        return [False] * len(self.windows)

    @property
    def is_dummy(self) -> list[bool]:
        return [False] * len(self.windows)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.seen

    def first(self, layer: int) -> int:
        """The first position that the next token attends to in a layer."""
        window = self.windows[layer]
        return 0 if window is None else max(self.seen - window + 1, 0)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        first = self.first(layer_idx)
        return self.seen + query_length - first, first

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return self.length

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return those that the active rows may attend to."""
        if layer_idx not in self._keys:
            for store, x in ((self._keys, key_states), (self._values, value_states)):
                # zeros, not empty: masked positions still meet a multiplication, and 0 * NaN is NaN
                store[layer_idx] = x.new_zeros(self.batch, x.shape[1], self.length, x.shape[3])
        keys, values = self._keys[layer_idx], self._values[layer_idx]
        if self._columns is not None:  # past tokens: one (row, position) per batch entry
            keys[self._rows, :, self._columns] = key_states[:, :, 0]
            values[self._rows, :, self._columns] = value_states[:, :, 0]
            if self._end is None:
                raise Written
            return self._gather(keys[:, :, : self._end], 0), self._gather(values[:, :, : self._end], 1)
        first, start, end = self.first(layer_idx), self.seen, self.seen + key_states.shape[2]
        if self._rows is None:
            keys[: self.alive, :, start:end] = key_states
            values[: self.alive, :, start:end] = value_states
            return keys[: self.alive, :, first:end], values[: self.alive, :, first:end]
        keys[self._rows, :, start:end] = key_states
        values[self._rows, :, start:end] = value_states
        return self._gather(keys[:, :, first:end], 0), self._gather(values[:, :, first:end], 1)

    def _gather(self, x: Tensor, which: int) -> Tensor:
        """The active rows, in memory shared by all layers: fresh memory per copy costs several times the copy."""
        assert self._rows is not None
        shape = (len(self._rows), *x.shape[1:])
        size = math.prod(shape)
        scratch = self._scratch.get(which)
        if scratch is None or scratch.numel() < size or scratch.dtype != x.dtype:
            most = max(size, self.batch * x.shape[1] * self.length * x.shape[3])
            scratch = self._scratch[which] = x.new_empty(most)
        return torch.index_select(x, 0, self._rows, out=scratch[:size].view(shape))

    # ---- what the engine asks of it

    @contextmanager
    def only(self, rows: Tensor) -> Iterator[None]:
        """Limit `update` to these rows."""
        self._rows = rows
        try:
            yield
        finally:
            self._rows = None

    @contextmanager
    def past(self, rows: Tensor, columns: Tensor, end: int | None = None) -> Iterator[None]:
        """Let `update` store one past position of each row.

        Args:
            rows: slot per batch entry, may repeat.
            columns: position per batch entry.
            end: hand out the positions before it; None ends the layer once K and V are stored.
        """
        self._rows, self._columns, self._end = rows, columns, end
        try:
            yield
        except Written:
            assert end is None
        finally:
            self._rows = self._columns = self._end = None

    def advance(self, positions: int) -> None:
        """Count the positions that a forward has just filled."""
        self.seen += positions
        assert self.seen <= self.length

    # ---- rows that leave, and the way back

    def rewind(self, length: int) -> None:
        """Back to the first `length` positions, every row alive and in the wave's order; the companion is let go."""
        assert length <= self.seen
        back = np.argsort(self.order)
        moved = np.flatnonzero(back != np.arange(self.batch))
        self.companion = None
        self.seen = length
        if len(moved):
            self._move(moved, back[moved])
        self.alive, self.order = self.batch, np.arange(self.batch)

    def keep(self, slots: list[int]) -> list[int]:
        """Drop all other alive rows, swapping them behind the kept. Returns the old slot of each kept row, in order."""
        count, kept = len(slots), set(slots)
        source = list(range(self.alive))
        holes = [s for s in range(count) if s not in kept]
        movers = [s for s in slots if s >= count]
        for hole, mover in zip(holes, movers, strict=True):
            source[hole], source[mover] = mover, hole
        moved = np.array([i for i in range(self.alive) if source[i] != i], dtype=np.int64)
        if len(moved):
            self._move(moved, np.array(source)[moved])
            self.order[: self.alive] = self.order[source]
        self.alive = count
        return source[:count]

    def _move(self, target: Slots, source: Slots) -> None:
        if self.companion is not None:
            self.companion.move(target, source)
        to, origin = torch.from_numpy(target), torch.from_numpy(source)
        for stores in (self._keys, self._values):
            for x in stores.values():
                part = x[:, :, : self.seen]
                part[to.to(x.device)] = part[origin.to(x.device)]

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        stores = (self._keys, self._values, self._scratch)
        return sum(t.numel() * t.element_size() for store in stores for t in store.values())
