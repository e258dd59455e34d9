"""The KV cache of a batch whose rows enter and leave; it keeps count of the positions.

A stock cache asks layer 0 for its length, so skipping layer 0 breaks positions. Here the length changes only in
`advance`, once per forward. All rows end at the same column and start where their length requires, so a row can enter
while others are being decoded, and sliding windows keep their meaning. Rows that have finished are swapped behind the
living ones, which stay contiguous and are returned as views.

Shape letters: B slots, G key/value heads, T columns of the cache, D head width, W model width, M past tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from dlbench.engine.kv.recurrent_states import RecurrentCache
from dlbench.engine.kv.storage import KeyValues, Places, Slots, copy_rows, halves


class KVStored(Exception):
    """Keys and values are stored, the rest of the layer is not wanted; raised in `update`, caught in `past`."""


class Companion(Protocol):
    """Other data that is kept per slot and must follow the rows, such as a KV policy's; see `KVPolicy`."""

    def move(self, target: Slots, source: Slots) -> None: ...

    def clear(self, slots: Slots) -> None: ...

    def shift(self, columns: int) -> None: ...


@final
class RowCache(RecurrentCache):
    """K and V as [B, G, T, D] per layer; `seen` columns are filled, slots 0..alive-1 are alive.

    Recurrent layers keep one state per slot (`states`), which follows its row.
    """

    is_compileable = False

    def __init__(self, windows: Sequence[int | None], slots: int, length: int) -> None:
        """Make an empty cache; memory of a layer is allocated at its first write.

        Args:
            windows: per layer, how many positions a token attends to, itself included; None for all.
            slots: B.
            length: T.
        """
        super().__init__(slots)
        self.windows, self.batch, self.length = windows, slots, length
        self.seen = self.alive = 0
        self.order: Slots = np.zeros(slots, dtype=np.int64)
        """order[slot] = index within the wave of the row in this slot."""
        self.starts: Slots = np.zeros(slots, dtype=np.int64)
        """Column of each slot's first token."""
        self.bases: Slots = np.zeros(slots, dtype=np.int64)
        """Column of each slot's first decoded token."""
        self.left = 0
        """First column that any living row fills; columns before it are not returned."""
        self.padded = False
        """Whether living rows start at different columns."""
        self.level = True
        """Whether all living rows have decoded the same number of tokens."""
        self.companion: Companion | None = None
        """Follows every change of the slots."""
        self.memory = KeyValues(slots, length)
        self._rewindable = True
        """Whether dropped rows are kept for `rewind`: seated rows are, admitted ones are not."""
        self._rows: Tensor | None = None
        self._columns: Tensor | None = None
        self._end: int | None = None
        self._begun: dict[Any, Tensor] | None = None
        """The states that `rewind` goes back to: decoding overwrites them."""

    def seat(self, rows: Slots, lengths: Slots, seen: int) -> None:
        """Fill an empty cache with rows whose tokens before column `seen` are, or will be, written.

        Args:
            rows: the wave's rows.
            lengths: tokens of each before its first decoded token.
            seen: column of the first decoded token of all of them.
        """
        count = len(rows)
        self.alive, self.companion, self._rewindable = count, None, True
        self.order[:count], self.starts[:count], self.bases[:count] = rows, seen - lengths, seen
        self._bounds()

    def empty(self, seen: int) -> None:
        """Empty the cache; the next write goes to column `seen`, and rows that enter end before it."""
        self.alive, self.seen, self.companion, self._rewindable = 0, seen, None, False
        self._bounds()

    @property
    def selected(self) -> Tensor | None:
        """Rows that keys and values are limited to, by `only`; None for all living ones."""
        return self._rows

    @property
    def takes_past(self) -> bool:
        """Whether what is written is of past tokens; see `past`."""
        return self._columns is not None

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

    # transformers' Cache interface: stock models see the columns from `left` on, as if there were no others

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
        """Store new keys and values; return those that the selected rows may attend to.

        Raises:
            KVStored: only past tokens were to be stored (see `past`).
        """
        keys, values = key_states.shape[-1], value_states.shape[-1]
        if keys == values:
            return self._update(key_states, value_states, layer_idx)
        # memory holds both in one tensor; latent attention (DeepSeek V3) has wider keys than values
        wide = max(keys, values)
        key_states, value_states = self._update(
            pad(key_states, (0, wide - keys)), pad(value_states, (0, wide - values)), layer_idx
        )
        return key_states[..., :keys], value_states[..., :values]

    def _update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        heads = key_states.shape[1]
        whole = self.memory.of(layer_idx, 2 * heads, key_states)
        if self._columns is not None and self._rows is not None:
            new = torch.cat((key_states, value_states), 1)[:, :, 0]
            self.memory.store(layer_idx, new, (self._rows, self._columns))
            if self._end is None:
                raise KVStored
            return self.memory.gathered(layer_idx, self._rows, slice(self.left, self._end))
        first, end = self.first(layer_idx), self.seen + key_states.shape[2]
        if self._rows is None:
            whole[: self.alive, :heads, self.seen : end] = key_states
            whole[: self.alive, heads:, self.seen : end] = value_states
            return halves(whole[: self.alive, :, first:end])
        whole[self._rows, :, self.seen : end] = torch.cat((key_states, value_states), 1)
        return self.memory.gathered(layer_idx, self._rows, slice(first, end))

    def append(
        self, new: Tensor, layer: int, past: Places | None = None, of: Tensor | None = None
    ) -> list[tuple[slice, Tensor, Tensor]]:
        """As `update` with one new token of each selected row; returns views where copies of the keys would be dear.

        Args:
            new: keys, then values, of the new tokens, followed by those of past tokens, [B + M, 2 G, D].
            layer: whose they are.
            past: where the past tokens are stored; None without past tokens.
            of: rows that attend, where all living ones are selected; None for all.

        Returns:
            Consecutive slices of the batch, or of the rows that attend, each with the keys and values that its rows may
            attend to. If all keys and values are as fast as those of the rows that attend, these are all.
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
                columns = slice(self.first(layer), self.seen + 1)
                if of is not None:
                    return memory.parts(layer, of, columns, count)
                return [(slice(None), *halves(whole[:count, :, columns]))]
            memory.store(layer, new, (rows, self.seen))
        return memory.parts(layer, rows, slice(self.first(layer), self.seen + 1))

    @contextmanager
    def only(self, rows: Tensor) -> Iterator[None]:
        """Limit keys, values and states to these rows."""
        self._rows = rows
        try:
            yield
            self._take_back()
        finally:
            self._rows = None

    @contextmanager
    def past(self, rows: Tensor, columns: Tensor, end: int | None = None) -> Iterator[None]:
        """Let `update` store one past token per batch entry.

        Args:
            rows: slot of each entry; may repeat, but not in a recurrent layer that runs.
            columns: column of each entry.
            end: return the columns before it; None ends the layer once K and V are stored.
        """
        self._rows, self._columns, self._end = rows, columns, end
        try:
            yield
            self._take_back()
        except KVStored:
            assert end is None
        finally:
            self._rows = self._columns = self._end = None

    def advance(self, positions: int) -> None:
        """Move the position forward by the columns that a forward has filled."""
        self.seen += positions
        assert self.seen <= self.length

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Let a forward run whose columns the next one overwrites: position and states return to what they were."""
        seen, states = self.seen, self.states.copies()
        try:
            yield
        finally:
            self.seen = seen
            self.states.restore(states)

    def rewind(self, length: int) -> None:
        """Go back to the first `length` columns, with every row alive in the wave's order and no companion.

        States go back to those of the first call, which must come before anything is decoded.
        """
        assert length <= self.seen and self._rewindable
        back = np.argsort(self.order)
        moved = np.flatnonzero(back != np.arange(self.batch))
        self.companion = None
        self.seen = length
        if len(moved):
            self._move(moved, back[moved])
        if self._begun is None:
            self._begun = self.states.copies()
        self.states.restore(self._begun)
        self.alive = self.batch
        self._bounds()

    def admit(
        self, slots: Slots, source: RowCache, places: Slots, layers: Collection[int] | None, decoded: int = 0
    ) -> None:
        """Copy rows from another cache into slots, shifted so that they end at this cache's column.

        Args:
            slots: of finished rows, or the first behind the living ones; or the rows' own, to be overwritten.
            source: holds the rows; no more columns are filled there than here.
            places: their slots in `source`.
            layers: layers to copy; None for all.
            decoded: how many of their tokens are decoded ones.
        """
        count, end = source.seen, self.seen
        assert count <= end
        for layer, theirs in source.memory.layers.items():
            if layers is None or layer in layers:
                into = self.memory.of(layer, theirs.shape[1], theirs)[:, :, end - count : end]
                copy_rows(into, slots, theirs[:, :, :count], places)
        self.states.admit(slots, source.states, places, layers)
        self.order[slots] = source.order[places]
        self.starts[slots] = source.starts[places] + (end - count)
        self.bases[slots] = end - decoded
        self.alive = max(self.alive, int(slots.max()) + 1)
        self._bounds()
        if self.companion is not None:
            self.companion.clear(slots)

    def keep(self, slots: list[int]) -> list[int]:
        """Drop all other living rows. Returns the old slot of each kept row, in order.

        Dropped rows that were seated are swapped behind the kept ones; admitted ones are lost.
        """
        count, kept = len(slots), set(slots)
        source = list(range(self.alive))
        holes = [s for s in range(count) if s not in kept]
        movers = [s for s in slots if s >= count]
        for hole, mover in zip(holes, movers, strict=True):
            source[hole], source[mover] = mover, hole
        moved = [i for i in range(self.alive if self._rewindable else count) if source[i] != i]
        if moved:
            self._move(np.array(moved), np.array(source)[moved])
        self.alive = count
        self._bounds()
        return source[:count]

    def make_room(self, least: int, more: int = 0) -> None:
        """Shift all rows to the left if the next write would not fit.

        Args:
            least: columns that must stay filled, so that rows of that length can enter.
            more: columns that are written at once beyond the next.
        """
        if self.seen + more < self.length:
            return
        columns, alive = min(self.left, self.seen - least), self.alive
        assert columns > 0
        self.memory.shift_left(alive, self.seen, columns)
        self.seen -= columns
        self.starts -= columns
        self.bases -= columns
        if self.companion is not None:
            self.companion.shift(columns)
        self._bounds()

    def retreat(self, slots: Slots, columns: int) -> None:
        """Drop the last columns of some rows; the rest of these rows moves to the right, to the common end."""
        self.memory.shift_right(slots, int(self.starts[slots].min()), self.seen, columns)
        self.starts[slots] += columns
        self.bases[slots] += columns
        self._bounds()

    def _move(self, target: Slots, source: Slots) -> None:
        if self.companion is not None:
            self.companion.move(target, source)
        for each in (self.order, self.starts, self.bases):
            each[target] = each[source]
        self.states.move(target, source)
        if self._rewindable:  # slots may swap
            self.memory.permute(target, source, self.seen)
        else:
            self.memory.copy(target, source, slice(self.left, self.seen))

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        copies = sum(states.nbytes for states in (self._begun or {}).values())
        return self.memory.nbytes() + self.states.nbytes() + copies
