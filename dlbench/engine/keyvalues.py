"""The memory of keys and values, and how parts of it are written and handed out.

Shape letters: B slots, H key/value heads, T columns, D head width, M tokens.
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


class KeyValues:
    """K and V of each layer, both [B, H, T, D], allocated when the layer first writes."""

    def __init__(self, slots: int, length: int) -> None:
        """Nothing is allocated yet.

        Args:
            slots: B.
            length: T.
        """
        self.slots, self.length = slots, length
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._scratch: dict[int, Tensor] = {}

    def __iter__(self) -> Iterator[Tensor]:
        """All there are: [B, H, T, D] each."""
        for pair in self.layers.values():
            yield from pair

    def of(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """K and V of a layer, made for such as these, [.., H, .., D], where there are none."""
        found = self.layers.get(layer)
        if found is None:
            # zeros, not empty: masked positions still meet a multiplication, and 0 * NaN is NaN
            k, v = (x.new_zeros(self.slots, x.shape[1], self.length, x.shape[3]) for x in (keys, values))
            found = self.layers[layer] = k, v
        return found

    def store(self, layer: int, keys: Tensor, values: Tensor, places: Places) -> None:
        """Keep keys and values of single tokens, [M, H, 1, D] each, at their places."""
        rows, columns = places
        for into, x in zip(self.of(layer, keys, values), (keys, values), strict=True):
            into[rows, :, columns] = x[:, :, 0].transpose(0, 1) if isinstance(rows, int) else x[:, :, 0]

    def gathered(self, layer: int, rows: Tensor, columns: slice) -> tuple[Tensor, Tensor]:
        """Copies for some slots, [len(rows), H, columns, D]; they stand until the next layer asks for its own."""
        keys, values = self.layers[layer]
        return self._copied(0, keys[:, :, columns], rows), self._copied(1, values[:, :, columns], rows)

    def handed_out(self, layer: int, rows: Tensor, columns: slice) -> list[tuple[slice, Tensor, Tensor]]:
        """The same in parts: as views, neighbours together, or as one copy, whichever takes less time.

        Returns:
            Entries of `rows`, which follow one another, and their K and V.
        """
        keys, values = self.layers[layer]
        if rows.is_cpu:
            slots = rows.numpy()
            cuts = [0, *(np.flatnonzero(np.diff(slots) > 1) + 1).tolist(), len(slots)]
            if 2 * len(slots) * keys[0, :, columns].nbytes > (len(cuts) - 1) * _COPIED:
                found = []
                for begin, stop in pairwise(cuts):
                    run = slice(int(slots[begin]), int(slots[begin]) + stop - begin)
                    found.append((slice(begin, stop), keys[run, :, columns], values[run, :, columns]))
                return found
        return [(slice(None), *self.gathered(layer, rows, columns))]

    def _copied(self, which: int, x: Tensor, rows: Tensor) -> Tensor:
        """Some slots, in memory shared by all layers: fresh memory per copy costs several times the copy."""
        shape = (len(rows), *x.shape[1:])
        size = math.prod(shape)
        scratch = self._scratch.get(which)
        if scratch is None or scratch.numel() < size or scratch.dtype != x.dtype:
            most = max(size, self.slots * x.shape[1] * self.length * x.shape[3])
            scratch = self._scratch[which] = x.new_empty(most)
        return torch.index_select(x, 0, rows, out=scratch[:size].view(shape))

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(x.nbytes for x in (*self, *self._scratch.values()))
