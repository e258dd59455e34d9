"""Counter-based random numbers: a number depends on its key and counters, not on the batch or process that asks."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def key_of(text: str) -> int:
    """A 64-bit key of a document's id."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _mix(x: Words) -> Words:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014): a bijection of 64-bit words."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(keys: Words, count: int, *counters: int | NDArray[np.int64]) -> NDArray[np.float64]:
    """Uniform random numbers in [0, 1): [len(keys), count], float64.

    Args:
        keys: one per row.
        count: numbers per row.
        counters: what the numbers are for (seed, step, layer, …): Python integers, or one integer per row.
    """
    with np.errstate(over="ignore"):
        state: Any = keys.astype(np.uint64)
        for counter in counters:
            word = np.uint64((counter + 1) % (1 << 64)) if isinstance(counter, int) else (counter + 1).astype(np.uint64)
            state = _mix(state + _GOLDEN * word)
        words = _mix(state[:, None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64)[None, :])
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
