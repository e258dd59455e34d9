"""The cache of a batch whose rows come and go; it owns the positions.

A stock cache asks layer 0 how long it is, so skipping layer 0 breaks positions. Here layers never count: `advance`
does, once per forward. All rows end at the same column and begin where their length says, so that a row can enter
while others are under way, and windows keep their meaning. Rows of the batch that have finished are swapped behind the
living ones, which stay contiguous and are handed out as views.

Shape letters: B slots, G key/value heads, T columns of the cache, D head width, W model width, M past tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache

from dlbench.engine.kv.storage import KeyValues, Places, Slots, copy_rows, halves, on


class Written(Exception):
    """Keys and values are stored, nothing after that is wanted; raised through the stock layer, caught by the gate."""


class Companion(Protocol):
    """What else is kept per slot, and must follow what happens to the slots."""

    def move(self, target: Slots, source: Slots) -> None:
        """Slots `target` take what slots `source` held; both at once."""
        ...

    def clear(self, slots: Slots) -> None:
        """Forget what these slots held: other rows have taken them."""
        ...

    def shift(self, columns: int) -> None:
        """Every column has moved to the left by so many."""
        ...


def windows(config: Any, depth: int) -> list[int | None]:
    """Per layer, how many positions a token attends to, itself included; None for all."""
    stock = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]
    return stock if len(stock) == depth else [None] * depth


class RowCache(Cache):
    """K and V as [B, G, T, D] per layer; `seen` columns are filled, slots 0..alive-1 are alive."""

    is_compileable = False

    def __init__(self, windows: Sequence[int | None], slots: int, length: int) -> None:
        """Nothing is allocated before a layer writes, and nobody is in yet.

        Args:
            windows: per layer, how many positions a token attends to, itself included; None for all.
            slots: B.
            length: T.
        """
        super().__init__(layers=[])
        self.windows, self.batch, self.length = windows, slots, length
        self.seen = self.alive = 0
        self.order: Slots = np.zeros(slots, dtype=np.int64)
        """order[slot] = index of the wave's row that stands in this slot."""
        self.starts: Slots = np.zeros(slots, dtype=np.int64)
        """Column of each slot's first token."""
        self.bases: Slots = np.zeros(slots, dtype=np.int64)
        """Column of each slot's first decoded token."""
        self.left = 0
        """First column that any living row fills; what lies before it is not handed out."""
        self.padded = False
        """Whether a living row begins later than another."""
        self.level = True
        """Whether all living rows have decoded as many tokens."""
        self.companion: Companion | None = None
        self.memory = KeyValues(slots, length)
        self._returns = True
        """Whether rows that are dropped can be asked for again, by `rewind`: those that were seated."""
        self._rows: Tensor | None = None
        self._columns: Tensor | None = None
        self._end: int | None = None

    def seat(self, rows: Slots, lengths: Slots, seen: int) -> None:
        """Let rows take the first slots, alone; their tokens before column `seen` are, or will be, written there.

        Args:
            rows: the wave's rows.
            lengths: tokens of each before its first decoded one.
            seen: column of the first decoded token of all of them.
        """
        count = len(rows)
        self.alive, self.companion, self._returns = count, None, True
        self.order[:count], self.starts[:count], self.bases[:count] = rows, seen - lengths, seen
        self._bounds()

    def empty(self, seen: int) -> None:
        """Nobody is in; the next column is `seen`, and rows that enter end before it."""
        self.alive, self.seen, self.companion, self._returns = 0, seen, None, False
        self._bounds()

    @property
    def steps(self) -> Slots:
        """Decoded tokens that each living row has in the cache: [alive]."""
        return self.seen - self.bases[: self.alive]

    def _bounds(self) -> None:
        starts = self.starts[: self.alive]
        self.left = int(starts.min()) if len(starts) else self.seen
        self.padded = bool((starts != self.left).any())
        bases = self.bases[: self.alive]
        self.level = bool((bases == bases[:1]).all())

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

    # They are shown the columns from `left` on, as if these were all.

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.seen - self.left

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self.seen - self.left

    def first(self, layer: int) -> int:
        """The first column that the next token attends to in a layer."""
        window = self.windows[layer]
        return self.left if window is None else max(self.seen - window + 1, self.left)

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        first = self.first(layer_idx)
        return self.seen + query_length - first, first - self.left

    def get_max_cache_shape(self, layer_idx: int = 0) -> int:
        return self.length

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Store the new keys and values; return those that the active rows may attend to."""
        heads = key_states.shape[1]
        whole = self.memory.of(layer_idx, 2 * heads, key_states)
        if self._columns is not None and self._rows is not None:
            new = torch.cat((key_states, value_states), 1)[:, :, 0]
            self.memory.store(layer_idx, new, (self._rows, self._columns))
            if self._end is None:
                raise Written
            return self.memory.gathered(layer_idx, self._rows, slice(self.left, self._end))
        first, end = self.first(layer_idx), self.seen + key_states.shape[2]
        if self._rows is None:
            whole[: self.alive, :heads, self.seen : end] = key_states
            whole[: self.alive, heads:, self.seen : end] = value_states
            return halves(whole[: self.alive, :, first:end])
        whole[self._rows, :, self.seen : end] = torch.cat((key_states, value_states), 1)
        return self.memory.gathered(layer_idx, self._rows, slice(first, end))

    def append(self, new: Tensor, layer: int, past: Places | None = None) -> list[tuple[slice, Tensor, Tensor]]:
        """As `update` with the new tokens of the active rows; where many keys would be copied, it hands out views.

        Args:
            new: keys, then values, of the new tokens, and behind them of past ones, [B + M, 2 G, D].
            layer: of these.
            past: where the past tokens are kept; None for no such tokens.

        Returns:
            Entries of the batch, which follow one another, and the keys and values that these may attend to.
        """
        rows, memory = self._rows, self.memory
        if self._columns is not None:
            keys, values = halves(new.unsqueeze(2))
            return [(slice(None), *self.update(keys, values, layer))]
        slots, columns = past or (None, None)
        if rows is not None and isinstance(slots, Tensor) and isinstance(columns, Tensor):
            now = rows.new_full(rows.shape, self.seen)
            memory.store(layer, new, (torch.cat((rows, slots)), torch.cat((now, columns))))
        else:
            count = self.alive if rows is None else len(rows)
            if past is not None:
                memory.store(layer, new[count:], past)
                new = new[:count]
            if rows is None:
                whole = memory.of(layer, new.shape[1], new)
                whole[:count, :, self.seen] = new
                return [(slice(None), *halves(whole[:count, :, self.first(layer) : self.seen + 1]))]
            memory.store(layer, new, (rows, self.seen))
        return memory.handed_out(layer, rows, slice(self.first(layer), self.seen + 1))

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
        """Let `update` store one past token of each row.

        Args:
            rows: slot per batch entry, may repeat.
            columns: column per batch entry.
            end: hand out the columns before it; None ends the layer once K and V are stored.
        """
        self._rows, self._columns, self._end = rows, columns, end
        try:
            yield
        except Written:
            assert end is None
        finally:
            self._rows = self._columns = self._end = None

    def advance(self, positions: int) -> None:
        """Count the columns that a forward has just filled."""
        self.seen += positions
        assert self.seen <= self.length

    # ---- rows that come and go

    def rewind(self, length: int) -> None:
        """Back to the first `length` columns, every row alive and in the wave's order; the companion is let go."""
        assert length <= self.seen and self._returns
        back = np.argsort(self.order)
        moved = np.flatnonzero(back != np.arange(self.batch))
        self.companion = None
        self.seen = length
        if len(moved):
            self._move(moved, back[moved])
        self.alive = self.batch
        self._bounds()

    def admit(
        self, slots: Slots, source: RowCache, places: Slots, layers: Collection[int] | None, decoded: int = 0
    ) -> None:
        """Let rows take slots, with what they have in another cache, moved so that they end at this one's column.

        Args:
            slots: free ones: left by finished rows, or the first behind the living; or their own, to be written anew.
            source: holds the rows; at most as many columns are filled there as here.
            places: their slots there.
            layers: those wanted; None for all.
            decoded: how many of their tokens they have decoded.
        """
        count, end = source.seen, self.seen
        assert count <= end
        for layer, theirs in source.memory.layers.items():
            if layers is None or layer in layers:
                into = self.memory.of(layer, theirs.shape[1], theirs)[:, :, end - count : end]
                copy_rows(into, slots, theirs[:, :, :count], places)
        self.order[slots] = source.order[places]
        self.starts[slots] = source.starts[places] + (end - count)
        self.bases[slots] = end - decoded
        self.alive = max(self.alive, int(slots.max()) + 1)
        self._bounds()
        if self.companion is not None:
            self.companion.clear(slots)

    def keep(self, slots: list[int]) -> list[int]:
        """Drop all other alive rows. Returns the old slot of each kept row, in order.

        Seated rows are swapped behind the kept; those that were admitted are forgotten.
        """
        count, kept = len(slots), set(slots)
        source = list(range(self.alive))
        holes = [s for s in range(count) if s not in kept]
        movers = [s for s in slots if s >= count]
        for hole, mover in zip(holes, movers, strict=True):
            source[hole], source[mover] = mover, hole
        moved = [i for i in range(self.alive if self._returns else count) if source[i] != i]
        if moved:
            self._move(np.array(moved), np.array(source)[moved])
        self.alive = count
        self._bounds()
        return source[:count]

    def make_room(self, least: int, more: int = 0) -> None:
        """Move everything to the left where the next column would lie behind the last.

        Args:
            least: columns that must be filled afterwards, so that rows of that length can enter.
            more: columns that are written at once beyond the next.
        """
        if self.seen + more < self.length:
            return
        columns, alive = min(self.left, self.seen - least), self.alive
        assert columns > 0
        for x in self.memory:
            x[:alive, :, : self.seen - columns] = x[:alive, :, columns : self.seen].clone()
        self.seen -= columns
        self.starts -= columns
        self.bases -= columns
        if self.companion is not None:
            self.companion.shift(columns)
        self._bounds()

    def retreat(self, slots: Slots, columns: int) -> None:
        """Take back the last columns of some rows: what is left of them moves to the right, to the common end."""
        end = self.seen
        first = int(self.starts[slots].min())
        for x in self.memory:
            rows = on(slots, x.device)
            x[:, :, first + columns : end][rows] = x[rows, :, first : end - columns]
        self.starts[slots] += columns
        self.bases[slots] += columns
        self._bounds()

    def _move(self, target: Slots, source: Slots) -> None:
        if self.companion is not None:
            self.companion.move(target, source)
        for each in (self.order, self.starts, self.bases):
            each[target] = each[source]
        for x in self.memory:
            if self._returns:
                part = x[:, :, : self.seen]
                part[on(target, x.device)] = part[on(source, x.device)]
            else:
                part = x[:, :, self.left : self.seen]
                copy_rows(part, target, part, source)

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.memory.nbytes()
