"""Decode steps of fused layers, captured as CUDA graphs, one per layer.

On a GPU a decode step of a small batch is bound by kernel launches: a layer is some twenty kernels, most of which run
for less time than the host needs to launch them. A graph launches them at once, but it is tied to shapes and addresses.
So everything that a captured layer touches has a fixed place:

- states have one buffer per boundary between layers: layer i reads buffer i and writes buffer i + 1, a row that skips
  the layer launches nothing, and a state that has entered a layer is not overwritten in that forward;
- keys and values lie in memory that outlives the wave (see `graph_pool`);
- the column to write, and each row's first column, are read from the device; empty columns are masked;
- counts of rows, columns and past tokens are rounded up to a few sizes; the surplus goes to a spare slot.

A graph is captured on the second use of its shape; the first use runs without a graph.

Shape letters: B slots and a spare one, n rows, m rows or past tokens, M past tokens, T columns, W model width, R rotary
width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from dlbench.engine.interfaces import LayerGates
from dlbench.engine.kernels.fused_model import FusedModel
from dlbench.engine.kv.masks import hiding
from dlbench.engine.kv.past_tokens import Owed, Past
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import KeyValues, Places, Slots, halves, send
from dlbench.method import Action

Work = Callable[[], None]
Recorder = Callable[[Work], Work]
"""Captures a piece of work without running it; returns what replays it."""
_RUN = int(Action.RUN)
_MOST_PAST = 256
"""Past tokens whose keys and values are made at once."""


def rounded(count: int, most: int) -> int:
    """The next power of two, but `most` where that is less."""
    return min(1 << (count - 1).bit_length(), most)


def columns_for(count: int, most: int) -> int:
    """Round `count` filled columns up to a size that graphs are captured for: 64, 96, 128, 192, 256, 384 and so on."""
    power = max(64, 1 << (count - 1).bit_length())
    return min(power * 3 // 4 if 64 < count <= power * 3 // 4 else power, most)


@final
class CudaGraphs:
    """Captures graphs on one CUDA device. They share scratch memory, since no two run at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, work: Work) -> Work:
        graph, stream = torch.cuda.CUDAGraph(), self._stream
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            # not with torch.cuda.graph(): it would wait for the device and release all free memory each time
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                work()
            finally:
                graph.capture_end()
        torch.cuda.current_stream(stream.device).wait_stream(stream)
        return graph.replay


def recorder(device: torch.device) -> Recorder | None:
    """What captures graphs on a device; None where the device has no graphs."""
    return CudaGraphs(device) if device.type == "cuda" else None


@final
class FixedCache:
    """The cache of a captured layer: writes to places read from the device, and returns a fixed number of columns."""

    def __init__(self, memory: KeyValues, rows: Tensor | slice, at: Tensor, columns: int) -> None:
        """Prepare.

        Args:
            memory: of keys and values.
            rows: slots, [m], or a slice of them.
            at: column of each row, [m], or one for all, [1].
            columns: how many to return; 0 for past tokens, which attend to nothing.
        """
        self.memory, self.rows, self.at, self.columns = memory, rows, at, columns

    def append(self, new: Tensor, layer: int, past: Places | None = None) -> list[tuple[slice, Tensor, Tensor]]:
        """As `RowCache.append`, without past tokens."""
        assert past is None
        rows, whole = self.rows, self.memory.of(layer, new.shape[1], new)
        if isinstance(rows, slice):
            whole[rows].index_copy_(2, self.at, new.unsqueeze(2))
        else:
            whole[rows, :, self.at] = new
        if not self.columns:
            return []
        shown = whole[:, :, : self.columns]
        return [(slice(None), *halves(shown[rows] if isinstance(rows, slice) else shown.index_select(0, rows)))]


@final
class GraphSteps:
    """Decode steps over one memory of keys and values, by graphs."""

    def __init__(self, model: FusedModel, memory: KeyValues, record: Recorder) -> None:
        """Allocate the buffers; nothing is captured yet.

        Args:
            model: whose steps.
            memory: of keys and values; its last slot is spare.
            record: captures graphs.
        """
        self.model, self.memory, self.record = model, memory, record
        self.depth = len(model.layers)
        self.spare = slots = memory.slots - 1
        like = model.layers[0].out.weight
        self.states = [like.new_zeros(memory.slots, model.width) for _ in range(self.depth + 1)]  # [B, W]
        self.ids = torch.zeros(memory.slots, dtype=torch.long, device=like.device)
        self.where = torch.zeros(memory.slots + 1, dtype=torch.long, device=like.device)
        self.starts, self.column = self.where[: memory.slots], self.where[memory.slots :]
        self.rows = torch.full((slots,), self.spare, dtype=torch.long, device=like.device)
        self.columns = torch.arange(memory.length, device=like.device)
        self.tables = {kind: model.table(kind, memory.length) for kind, _ in model.groups if model.rotary is not None}
        self.angles = {
            kind: tuple(x.new_zeros(memory.slots, *x.shape[1:]) for x in table) for kind, table in self.tables.items()
        }  # [B, 1, R]
        self.masks = {
            window: like.new_zeros(memory.slots, 1, 1, memory.length) for _, window in model.groups
        }  # [B, 1, 1, T]
        self.past = torch.zeros(3 * _MOST_PAST, dtype=torch.long, device=like.device)
        self.past_states = like.new_zeros(_MOST_PAST, model.width)
        self.logits: Tensor | None = None  # [B, V]
        self._recorded: dict[Hashable, Work] = {}
        self._seen: set[Hashable] = set()
        self._views: dict[int, list[Tensor]] = {}

    def step(self, gates: LayerGates, ids: Tensor, cache: RowCache) -> Tensor:
        """Run one new token per living row; see `ModelStep.step`. The logits are valid until the next step."""
        self.alive, self.count = cache.alive, rounded(cache.alive, self.spare)
        self.shown = columns_for(cache.seen + 1, self.memory.length)
        if self.alive not in self._views:
            self._views[self.alive] = [x[: self.alive].unsqueeze(1) for x in self.states]
        self.views = self._views[self.alive]
        where = np.full(len(self.where), cache.seen)  # empty slots start at this column: their position is 0
        where[: self.alive] = cache.starts[: self.alive]
        send(where, self.where)
        self.ids[: self.alive].copy_(ids[:, 0])
        count = self.count
        self._replay(("enter", count), lambda: self._enter(count))
        hidden = self.views[0]
        for index in range(self.depth):
            hidden = gates.layer(index, CapturedLayer(self, index), hidden, {})
        if gates.routing is not None and gates.routing.known:
            return self.model.leave(hidden)[:, -1]
        self._place(self.depth, hidden)
        self._replay(("leave", count), lambda: self._leave(count))
        assert self.logits is not None
        return self.logits[: self.alive]

    def _enter(self, count: int) -> None:
        starts = self.starts[:count]
        at = (self.column - starts).clamp_(min=0)
        self.states[0][:count].copy_(self.model.embedded(self.ids[:count, None], at)[:, 0])
        for kind, table in self.tables.items():
            for into, x in zip(self.angles[kind], table, strict=True):
                into[:count].copy_(x.index_select(0, at))
        for window, mask in self.masks.items():
            there = (self.columns >= starts[:, None]) & (self.columns <= self.column)
            if window is not None:
                there &= self.columns > self.column - window
            mask[:count].copy_(hiding(there[:, None, None], mask.dtype))

    def _leave(self, count: int) -> None:
        logits = self.model.leave(self.states[-1][:count].unsqueeze(1))[:, -1]
        if self.logits is None:
            self.logits = logits.new_zeros(self.memory.slots, logits.shape[-1])
        self.logits[:count].copy_(logits)

    def run(self, index: int, hidden: Tensor, part: int) -> Tensor:
        """Run a layer, or a sub-layer of it, for every row: [alive, 1, W] -> [alive, 1, W]."""
        self._place(index, hidden)
        count, shown = self.count, self.shown
        self._replay((index, part, shown, count), lambda: self._run(index, part, count, shown))
        return self.views[index + 1]

    def _run(self, index: int, part: int, count: int, shown: int) -> None:
        out = self._call(index, part, self.states[index][:count], slice(count), self.column, shown)
        self.states[index + 1][:count].copy_(out)

    def run_rows(self, index: int, hidden: Tensor, slots: Slots, part: int, into: Tensor) -> Tensor:
        """Run it for some rows: `into` [alive, 1, W] with their new states in place of the old ones."""
        self._place(index, hidden)
        fresh, shown, most = into is hidden, self.shown, rounded(len(slots), self.spare)
        if not fresh:
            self._place(index + 1, into)
        rows = np.full(most, self.spare)
        rows[: len(slots)] = slots
        send(rows, self.rows[:most])
        self._replay((index, part, shown, most, fresh), lambda: self._run_rows(index, part, shown, most, fresh=fresh))
        return self.views[index + 1]

    def _run_rows(self, index: int, part: int, shown: int, most: int, *, fresh: bool) -> None:
        rows, target = self.rows[:most], self.states[index + 1]
        out = self._call(index, part, self.states[index].index_select(0, rows), rows, self.column, shown)
        if fresh:
            target.copy_(self.states[index])
        target.index_copy_(0, rows, out)

    def _call(self, index: int, part: int, states: Tensor, rows: Tensor | slice, at: Tensor, shown: int) -> Tensor:
        """Run a fused layer on states [m, W] of these rows: -> [m, W]."""
        kind, window = self.model.groups[index]
        layer, angles = self.model.layers[index], self.angles.get(kind)
        arguments: dict[str, Any] = {
            layer.cache: FixedCache(self.memory, rows, at, shown),
            "attention_mask": self.masks[window][..., :shown][rows],
            "position_embeddings": None if angles is None else tuple(x[rows] for x in angles),
            "signed": True,
        }
        return layer(states.unsqueeze(1), part=part, **arguments)[:, 0]

    def fill(self, index: int, past: Past, positions: Slots) -> None:
        """Make the keys and values of past tokens at these positions of their texts, [M]."""
        for begin in range(0, len(past.slots), _MOST_PAST):
            part = slice(begin, min(begin + _MOST_PAST, len(past.slots)))
            count = part.stop - begin
            most = rounded(count, _MOST_PAST)
            table = np.zeros((3, most), dtype=np.int64)
            table[0] = self.spare
            table[:, :count] = past.slots[part], past.columns[part], positions[part]
            send(table.ravel(), self.past[: table.size])
            self.past_states[:count].copy_(past.states[part])
            self._replay((index, "fill", most), lambda most=most: self._fill(index, most))  # type: ignore[misc]

    def _fill(self, index: int, most: int) -> None:
        slots, columns, positions = self.past[: 3 * most].view(3, most)
        kind, _ = self.model.groups[index]
        layer, table = self.model.layers[index], self.tables.get(kind)
        arguments: dict[str, Any] = {
            layer.cache: FixedCache(self.memory, slots, columns, 0),
            "position_embeddings": None if table is None else tuple(x.index_select(0, positions) for x in table),
            "signed": True,
        }
        layer.fill(self.past_states[:most].unsqueeze(1), **arguments)

    def _place(self, index: int, hidden: Tensor) -> None:
        """Copy the states that enter a layer to the layer's buffer, unless they are there already."""
        if hidden is not self.views[index]:
            self.states[index][: self.alive].copy_(hidden[:, 0])

    def _replay(self, key: Hashable, work: Work) -> None:
        """Do some work, by its graph if there is one; the graph is captured on the second use of the key."""
        recorded = self._recorded.get(key)
        if recorded is None and key in self._seen:
            recorded = self._recorded[key] = self.record(work)
        if recorded is None:
            self._seen.add(key)
            recorded = work
        recorded()

    def nbytes(self) -> int:
        """Memory of the buffers in bytes, without keys and values."""
        several = [*self.states, *self.masks.values(), *(x for pair in self.angles.values() for x in pair)]
        return sum(x.nbytes for x in several)


@final
class CapturedLayer:
    """One layer of `GraphSteps`, as the gates call it."""

    merges = False
    own_angles = True
    run_some = None

    def __init__(self, steps: GraphSteps, index: int) -> None:
        self.steps, self.index = steps, index

    def __call__(self, hidden: Tensor, *, part: int = _RUN, owed: Owed | None = None, **_: Any) -> Tensor:
        """Run the layer, or a sub-layer of it, for every row: [alive, 1, W] -> [alive, 1, W]."""
        return self.steps.run(self.index, hidden, part)

    def run_rows(self, hidden: Tensor, slots: Slots, part: int, into: Tensor) -> Tensor:
        """Run it for some rows; see `GraphSteps.run_rows`."""
        return self.steps.run_rows(self.index, hidden, slots, part, into)

    def fill_past(self, past: Past, positions: Slots, kwargs: dict[str, Any]) -> None:
        """Make keys and values of past tokens; see `GraphSteps.fill`."""
        self.steps.fill(self.index, past, positions)
