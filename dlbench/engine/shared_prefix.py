"""Prefixes that the prompts of a wave share, such as an instruction or the same few-shot examples: each is read once.

Keys and values of a token depend on the tokens before it alone, so those of a common prefix are the same in every
prompt. It is read as one row, and its keys and values are copied into the rows of the wave, each of which then reads
only the rest of its prompt. Nothing is remembered for later waves: what a wave computes follows from its own prompts,
so that records do not depend on how many processes there are, or on which of them read what before.

What a prompt costs by itself is credited as if it had been read alone; executed FLOPs are those that were computed.

Not shared are prompts whose layers a method chooses, rotary angles that depend on the length of the whole prompt, and
the states of recurrent layers, which cannot go back to where prompts part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.routing.prompt_states import StateSums

LEAST = 16
"""Fewest tokens that are read as a prefix of their own."""
SPARED = 128
"""Fewest tokens that reading a prefix must spare, which takes one more forward."""
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Prefix:
    """The first tokens of some prompts, as they were read."""

    tokens: int
    cache: RowCache
    """Holds them in the first columns of one row."""
    sums: StateSums

    def copy_to(self, cache: RowCache, counts: Slots) -> None:
        """Copy its first tokens into each row of a cache, so that they end where the next write begins.

        Args:
            cache: the living rows have no keys and values yet.
            counts: how many tokens each row takes, [alive].
        """
        for layer, ours in self.cache.memory.layers.items():
            into = cache.memory.of(layer, ours.shape[1], ours)
            for count in np.unique(counts).tolist():
                slots = on(np.flatnonzero(counts == count), into.device)
                into[slots, :, cache.seen - count : cache.seen] = ours[:, :, :count]


@dataclass(frozen=True)
class PrefixSharing:
    """Whether the prompts of a model may share a prefix, and from which length on they do."""

    usable: bool
    least: int = LEAST
    """Fewest tokens that are read as a prefix of their own."""
    spared: int = SPARED
    """Fewest tokens that reading a prefix must spare."""

    def tokens(self, prompts: Sequence[Ids]) -> int:
        """How many tokens of some prompts, those of a wave, are to be read as a prefix; 0 where it is not worth it."""
        common = shared(prompts) if self.usable else 0
        return common if common >= self.least and common * (len(prompts) - 1) >= self.spared else 0

    def tokens_read(self, prompts: Sequence[Ids]) -> int:
        """How many tokens a wave of these prompts runs, padding excluded."""
        return sum(map(len, prompts)) - self.tokens(prompts) * (len(prompts) - 1)


def shared(prompts: Sequence[Ids]) -> int:
    """The length of the longest common prefix of some prompts that leaves each at least one token."""
    first, last = min(prompts), max(prompts)  # what these two share, all between them share
    least = min(map(len, prompts)) - 1
    parted = (count for count, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return min(next(parted, least), least)
