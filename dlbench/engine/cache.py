"""Keys and values of all layers, preallocated; the cache owns the position.

A stock cache asks layer 0 how long it is, so skipping layer 0 breaks positions. Here layers never count: `advance`
does, once per forward. Rows of the batch that have finished are swapped behind the living ones, so that the living
stay contiguous and are handed out as views.

Shape letters: B rows, H key/value heads, T positions of the cache, D head width, W model width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache


class Written(Exception):
    """Keys and values are stored, nothing after that is wanted; raised through the stock layer, caught by the gate."""


class RowCache(Cache):
    """K and V as [B, H, T, D] per layer; `seen` positions are filled, rows 0..alive-1 are alive."""

    is_compileable = False

    def __init__(self, depth: int, rows: int, length: int) -> None:
        super().__init__(layers=[])
        self.depth, self.batch, self.length = depth, rows, length
        self.seen, self.alive = 0, rows
        self.origin = 0
        """First decoded position; nothing before it can be owed."""
        self.order = np.arange(rows)
        """order[slot] = index of the wave's row that stands in this slot."""
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._scratch: dict[int, Tensor] = {}
        self._states: dict[int, Tensor] = {}
        self._owed: dict[int, np.ndarray[Any, np.dtype[np.bool_]]] = {}
        self._rows: Tensor | None = None
        self._columns: Tensor | None = None

    # ---- what stock models ask of a cache

    @property
    def is_initialized(self) -> bool:
        return True

    @property
    def is_sliding(self) -> list[bool]:
        return [False] * self.depth

    @property
    def is_linear(self) -> list[bool]:
        return [False] * self.depth

    @property
    def is_dummy(self) -> list[bool]:
        return [False] * self.depth

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return self.seen + query_length, 0

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
        if self._columns is not None:  # a fill: one (row, position) per batch entry
            keys[self._rows, :, self._columns] = key_states[:, :, 0]
            values[self._rows, :, self._columns] = value_states[:, :, 0]
            raise Written
        start, end = self.seen, self.seen + key_states.shape[2]
        if self._rows is None:
            keys[: self.alive, :, start:end] = key_states
            values[: self.alive, :, start:end] = value_states
            return keys[: self.alive, :, :end], values[: self.alive, :, :end]
        keys[self._rows, :, start:end] = key_states
        values[self._rows, :, start:end] = value_states
        return self._gather(keys[:, :, :end], 0), self._gather(values[:, :, :end], 1)

    def _gather(self, x: Tensor, which: int) -> Tensor:
        """The active rows, in memory shared by all layers: fresh memory per copy costs several times the copy."""
        assert self._rows is not None
        shape = (len(self._rows), *x.shape[1:])
        size = math.prod(shape)
        scratch = self._scratch.get(which)
        if scratch is None or scratch.numel() < size or scratch.dtype != x.dtype:
            scratch = self._scratch[which] = x.new_empty(self.batch * x.shape[1] * self.length * x.shape[3])
        return torch.index_select(x, 0, self._rows, out=scratch[:size].view(shape))

    # ---- what the engine asks of it

    @contextmanager
    def only(self, rows: Tensor, columns: Tensor | None = None) -> Iterator[None]:
        """Limit `update` to these rows; with `columns`, store one position of each and end the layer there."""
        self._rows, self._columns = rows, columns
        try:
            yield
        except Written:
            assert columns is not None
        finally:
            self._rows = self._columns = None

    def advance(self, positions: int) -> None:
        """Count the positions that a forward has just filled."""
        self.seen += positions
        assert self.seen <= self.length

    # ---- K and V that skipped tokens still owe

    def owe(self, layer: int, slots: np.ndarray[Any, Any] | None, hidden: Tensor) -> None:
        """Remember the state that passed a layer by, [alive, W]: its K and V are made when they are first needed.

        Args:
            layer: the layer that did not run.
            slots: rows that it did not run for; None for all.
            hidden: state of all alive rows.
        """
        if layer not in self._states:
            self._states[layer] = hidden.new_empty(self.batch, self.length - self.origin, hidden.shape[-1])
            self._owed[layer] = np.zeros((self.batch, self.length - self.origin), dtype=bool)
        at = self.seen - self.origin
        if slots is None:
            self._states[layer][: self.alive, at] = hidden
            self._owed[layer][: self.alive, at] = True
        else:
            index = torch.from_numpy(slots).to(hidden.device)
            self._states[layer][index, at] = hidden[index]
            self._owed[layer][slots, at] = True

    def settle(
        self, layer: int, slots: np.ndarray[Any, Any] | None
    ) -> tuple[np.ndarray[Any, Any], Tensor, Tensor, Tensor] | None:
        """What these rows owe a layer, marked as paid: slots [M] (host), slots [M], positions [M], states [M, W]."""
        owed = self._owed.get(layer)
        if owed is None:
            return None
        due = owed[: self.alive, : self.seen - self.origin]
        if slots is None:
            host, at = np.nonzero(due)
        else:
            host, at = np.nonzero(due[slots])
            host = slots[host]
        if not len(host):
            return None
        owed[host, at] = False
        states = self._states[layer]
        row, column = torch.from_numpy(host).to(states.device), torch.from_numpy(at).to(states.device)
        return host, row, column + self.origin, states[row, column]

    # ---- rows that leave, and the way back

    def rewind(self, length: int) -> None:
        """Back to the first `length` positions, every row alive and in the wave's order."""
        assert length <= self.seen
        back = np.argsort(self.order)
        moved = np.flatnonzero(back != np.arange(self.batch))
        self._owed.clear()
        self._states.clear()
        self.seen = self.origin = length
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

    def _move(self, target: np.ndarray[Any, Any], source: np.ndarray[Any, Any]) -> None:
        for owed in self._owed.values():
            owed[target] = owed[source]
        to, origin = torch.from_numpy(target), torch.from_numpy(source)
        for stores, axis, length in (
            (self._keys, 2, self.seen),
            (self._values, 2, self.seen),
            (self._states, 1, self.seen - self.origin),
        ):
            for x in stores.values():
                part = x.narrow(axis, 0, length)
                part[to.to(x.device)] = part[origin.to(x.device)]

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        stores = (self._keys, self._values, self._scratch, self._states)
        return sum(t.numel() * t.element_size() for store in stores for t in store.values())
