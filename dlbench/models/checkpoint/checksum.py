"""A fast checksum of a model's weights in memory, which tells whether a method's code has changed them.

`dlbench.models.checkpoint.hashes` identifies a model, by SHA-256; this only compares a model with itself, after every
wave of documents, and therefore runs on the weights' own device at the speed of its memory.
"""

from __future__ import annotations

import functools
from typing import Any, final

import torch
from torch import Tensor

from dlbench.models.checkpoint.hashes import place_of, plain_tensors

_WORDS = {"cpu": 1 << 15}
"""Words of 8 bytes that are multiplied at a time, by type of device: what fits the caches of a core."""
_OTHERWISE = 1 << 21


@final
class WeightsGuard:
    """Remembers what a model's weights were when it was made."""

    def __init__(self, model: Any) -> None:
        """Note the weights of a loaded transformers model."""
        self._model = model
        self._noted = checksums(model)

    def changed(self) -> str | None:
        """Name of a tensor that is not what it was; None where all are."""
        now = checksums(self._model)
        names = sorted(self._noted.keys() | now.keys())
        return next((name for name in names if self._noted.get(name) != now.get(name)), None)


@torch.no_grad()
def checksums(model: Any) -> dict[str, tuple[object, ...]]:
    """Checksum of every tensor in a model's state dict that is in memory, with its dtype and shape."""
    found: dict[str, tuple[object, ...]] = {}
    tied: dict[tuple[object, ...], int] = {}
    for name, tensor in plain_tensors(model):
        if not tensor.is_meta:
            place = place_of(tensor)
            if place not in tied:
                tied[place] = _checksum(tensor)
            found[name] = tensor.dtype, tuple(tensor.shape), tied[place]
    return found


def _checksum(tensor: Tensor) -> int:
    """Sum of the words of a tensor, each multiplied by an odd number that depends on its place, modulo 2⁶⁴."""
    octets = tensor.contiguous().reshape(-1).view(torch.uint8)
    if octets.storage_offset() % 8:
        octets = octets.clone()
    whole = octets.numel() // 8 * 8
    size = _WORDS.get(tensor.device.type, _OTHERWISE)
    total = int(octets[whole:].long().sum())
    words = octets[:whole].view(torch.int64)
    for start in range(0, words.numel(), size):
        piece = words[start : start + size]
        total = total * 0x9E3779B97F4A7C15 + int((piece * _factors(tensor.device, size)[: piece.numel()]).sum())
    return total % 2**64


@functools.cache
def _factors(device: torch.device, size: int) -> Tensor:
    """Odd numbers without a pattern: [size]."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(-(2**63), 2**63 - 1, (size,), dtype=torch.int64, generator=generator)
    return (drawn | 1).to(device)
