"""The memory of keys and values, and how parts of it are written and handed out.

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
"""Slots and columns of several tokens: each has both, or all have one column, or they are a run of one slot."""
_COPIED = 600_000
"""Bytes of keys and values that a CPU copies in the time of one more call of the attention kernel."""


def on(array: NDArray[Any], device: torch.device) -> Tensor:
    """The same on a device; where that is the host, the memory is shared."""
    found = torch.from_numpy(array)
    # CUDA reads so little before the call returns: the host need not wait for the device
    return found if device.type == "cpu" else found.to(device, non_blocking=device.type == "cuda")


def send(array: NDArray[Any], into: Tensor) -> None:
    """Copy the same into memory of a device, of the same shape."""
    into.copy_(torch.from_numpy(array), non_blocking=into.is_cuda)


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """The two halves of a tensor's second dimension, such as K and V of what holds both, [B, 2 G, ...]: views."""
    half = x.shape[1] // 2
    first, second = x.split_with_sizes((half, half), 1)  # cheaper than `chunk`, and asked for twice per layer and step
    return first, second


def copy_rows(into: Tensor, target: Slots, given: Tensor, source: Slots) -> None:
    """Rows `target` of one tensor take rows `source` of another, or of the same where none of them is both."""
    if into.is_cpu:  # a look-up of several would make a copy of its own first
        for to, of in zip(target.tolist(), source.tolist(), strict=True):
            into[to].copy_(given[of])
    else:
        into[on(target, into.device)] = given[on(source, into.device)]


class KeyValues:
    """K and V of each layer, one behind the other: [B, 2 G, T, D], allocated when the layer first writes."""

    def __init__(self, slots: int, length: int) -> None:
        """Nothing is allocated yet.

        Args:
            slots: B.
            length: T.
        """
        self.slots, self.length = slots, length
        self.layers: dict[int, Tensor] = {}
        self._scratch: Tensor | None = None

    def __iter__(self) -> Iterator[Tensor]:
        """All there are: [B, 2 G, T, D] each."""
        return iter(self.layers.values())

    def of(self, layer: int, heads: int, like: Tensor) -> Tensor:
        """K and V of a layer; where there are none, for so many heads of both, as wide as `like`, [.., D]."""
        found = self.layers.get(layer)
        if found is None:
            # zeros, not empty: masked positions still meet a multiplication, and 0 * NaN is NaN
            found = self.layers[layer] = like.new_zeros(self.slots, heads, self.length, like.shape[-1])
        return found

    def store(self, layer: int, new: Tensor, places: Places) -> None:
        """Keep keys and values of single tokens, [M, 2 G, D], at their places."""
        rows, columns = places
        into = self.of(layer, new.shape[1], new)
        into[rows, :, columns] = new.transpose(0, 1) if isinstance(rows, int) else new

    def gathered(self, layer: int, rows: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
        """Copies for some slots, [len(rows), G, columns, D]; they stand until the next layer asks for its own."""
        return halves(self._copied(self.layers[layer][:, :, columns], rows))

    def handed_out(self, layer: int, rows: Tensor, columns: slice) -> list[tuple[slice, Tensor, Tensor]]:
        """The same in parts: as views, neighbours together, or as one copy, whichever takes less time.

        Returns:
            Entries of `rows`, which follow one another, and their K and V.
        """
        whole = self.layers[layer][:, :, columns]
        if rows.is_cpu:
            slots = rows.numpy()
            cuts = [0, *(np.flatnonzero(np.diff(slots) > 1) + 1).tolist(), len(slots)]
            if len(slots) * whole[0].nbytes > (len(cuts) - 1) * _COPIED:
                found = []
                for begin, stop in pairwise(cuts):
                    run = slice(int(slots[begin]), int(slots[begin]) + stop - begin)
                    found.append((slice(begin, stop), *halves(whole[run])))
                return found
        return [(slice(None), *self.gathered(layer, rows, columns))]

    def _copied(self, x: Tensor, rows: Tensor) -> Tensor:
        """Some slots, in memory shared by all layers: fresh memory per copy costs several times the copy."""
        shape = (len(rows), *x.shape[1:])
        size = math.prod(shape)
        scratch = self._scratch
        if scratch is None or scratch.numel() < size or scratch.dtype != x.dtype:
            most = max(size, self.slots * x.shape[1] * self.length * x.shape[3])
            scratch = self._scratch = x.new_empty(most)
        return torch.index_select(x, 0, rows, out=scratch[:size].view(shape))

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(x.nbytes for x in self) + (0 if self._scratch is None else self._scratch.nbytes)
