"""Memory of keys and values: allocation, writes, and views or copies of parts.

Shape letters: B slots, G heads of keys or of values, T columns, D head width, M tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Slots = NDArray[np.int64]
Places = tuple[Tensor, Tensor | int] | tuple[int, slice]
"""Slots and columns of several tokens: one each per token, one column for all, or consecutive columns of one slot."""
_COPIED = 600_000
"""Bytes of keys and values that a CPU copies in the time of one more call to the attention kernel."""


def on(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on a device; on a CPU they share memory."""
    tensor = torch.from_numpy(array)
    # CUDA reads an array this small before the call returns, so the host need not wait for the device
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=device.type == "cuda")


def send(array: NDArray[Any], into: Tensor) -> None:
    """Copy an array into a tensor of the same shape on a device."""
    into.copy_(torch.from_numpy(array), non_blocking=into.is_cuda)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split a tensor's second dimension in two views, such as [B, 2 G, ...] into keys and values."""
    half = x.shape[1] // 2
    first, second = x.split_with_sizes((half, half), 1)  # cheaper than `chunk`, and called twice per layer and step
    return first, second


def copy_rows(into: Tensor, target: Slots, given: Tensor, source: Slots) -> None:
    """Copy rows `source` of one tensor to rows `target` of another, or of the same if the two sets do not overlap."""
    if into.is_cpu:  # indexing several rows would make a temporary copy
        for to, of in zip(target.tolist(), source.tolist(), strict=True):
            into[to].copy_(given[of])
    else:
        into[on(target, into.device)] = given[on(source, into.device)]


class KeyValues:
    """Keys, then values, of each layer: [B, 2 G, T, D], allocated at the layer's first write."""

    def __init__(self, slots: int, length: int) -> None:
        """Allocate nothing yet.

        Args:
            slots: B.
            length: T.
        """
        self.slots, self.length = slots, length
        self.layers: dict[int, Tensor] = {}
        self._scratch: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """The memory of each allocated layer: [B, 2 G, T, D]."""
        return iter(self.layers.values())

    def of(self, layer: int, heads: int, like: Tensor) -> Tensor:
        """Keys and values of a layer, allocated if need be: `heads` in all, as wide as `like`, [.., D]."""
        whole = self.layers.get(layer)
        if whole is None:
            # zeros, not empty: masked positions are still multiplied, and 0 * NaN is NaN
            whole = self.layers[layer] = like.new_zeros(self.slots, heads, self.length, like.shape[-1])
        return whole

    def store(self, layer: int, new: Tensor, places: Places) -> None:
        """Store keys and values of single tokens, [M, 2 G, D], at their places."""
        rows, columns = places
        into = self.of(layer, new.shape[1], new)
        into[rows, :, columns] = new.transpose(0, 1) if isinstance(rows, int) else new

    def gathered(self, layer: int, rows: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
        """Keys and values of some slots as copies, [len(rows), G, columns, D]; valid until the next layer's copies."""
        return halves(self._copied(self.layers[layer][:, :, columns], rows))

    def parts(self, layer: int, rows: Tensor, columns: slice, alive: int = 0) -> list[tuple[slice, Tensor, Tensor]]:
        """Keys and values of some slots, as one copy or as views of consecutive slots, whichever is faster.

        Args:
            layer: whose they are.
            rows: the slots, in ascending order.
            columns: those that are wanted.
            alive: so many slots, the first ones, are returned as one view where attending to the rest too takes a CPU
                less time; 0 never does so.

        Returns:
            Consecutive slices of `rows`, each with its keys and values.
        """
        whole = self.layers[layer][:, :, columns]
        if rows.is_cpu:
            slots, count, each = rows.numpy(), len(rows), whole[0].nbytes
            cuts = [0, *(np.flatnonzero(np.diff(slots) > 1) + 1).tolist(), count]
            if alive and (alive - count) * each < min(2 * count * each, (len(cuts) - 2) * _COPIED):
                return [(slice(None), *halves(whole[:alive]))]
            if count * each > (len(cuts) - 1) * _COPIED:
                parts = []
                for begin, stop in pairwise(cuts):
                    run = slice(int(slots[begin]), int(slots[begin]) + stop - begin)
                    parts.append((slice(begin, stop), *halves(whole[run])))
                return parts
        return [(slice(None), *self.gathered(layer, rows, columns))]

    def _copied(self, x: Tensor, rows: Tensor) -> Tensor:
        """Copy some slots to scratch memory that all layers share: allocating costs several times the copy."""
        shape = (len(rows), *x.shape[1:])
        size = math.prod(shape)
        scratch = self._scratch
        if scratch is None or scratch.numel() < size or scratch.dtype != x.dtype:
            most = max(size, self.slots * x.shape[1] * self.length * x.shape[3])
            scratch = self._scratch = x.new_empty(most)
        return torch.index_select(x, 0, rows, out=scratch[:size].view(shape))

    def shift_left(self, rows: int, end: int, columns: int) -> None:
        """Move the columns before `end` of the first rows to the left; the first columns are overwritten."""
        for x in self:
            x[:rows, :, : end - columns] = x[:rows, :, columns:end].clone()

    def shift_right(self, slots: Slots, first: int, end: int, columns: int) -> None:
        """Move the columns from `first` on to the right, up to `end`; the last columns are overwritten."""
        for x in self:
            rows = on(slots, x.device)
            x[:, :, first + columns : end][rows] = x[rows, :, first : end - columns]

    def permute(self, target: Slots, source: Slots, end: int) -> None:
        """Copy the columns before `end` of slots `source` to slots `target`, all at once: the two may overlap."""
        for x in self:
            part = x[:, :, :end]
            part[on(target, x.device)] = part[on(source, x.device)]

    def copy(self, target: Slots, source: Slots, columns: slice) -> None:
        """Copy columns of slots `source` to slots `target`; no slot is in both."""
        for x in self:
            part = x[:, :, columns]
            copy_rows(part, target, part, source)

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(x.nbytes for x in self) + (0 if self._scratch is None else self._scratch.nbytes)
