"""Prefixes that prompts share, such as an instruction or the same few-shot examples: each is read once for all of them.

Keys and values of a token depend on the tokens before it alone, so those of a common prefix are the same in every
prompt. It is read as one row, and its keys and values are copied into the rows of a wave, each of which then reads only
the rest of its prompt. The last prefixes are kept for later waves.

What a prompt costs by itself is credited as if it had been read alone; executed FLOPs are those that were computed.

Not shared are prompts whose layers a method chooses, rotary angles that depend on the length of the whole prompt, and
the states of recurrent layers, which cannot go back to where prompts part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.routing.prompt_states import StateSums

LEAST = 16
"""Fewest tokens that are read as a prefix of their own."""
SPARED = 128
"""Fewest tokens that reading a prefix must spare, which takes one more forward."""
KEPT = 2
"""Most prefixes that are kept: one of a task, and one of the task before."""
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Prefix:
    """The first tokens of some prompts, as they were read."""

    ids: Ids
    cache: RowCache
    """Holds them in the first columns of one row."""
    sums: StateSums
    """Of the states of all tokens that were read; of no use where only the first of them are taken."""

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


@final
class PrefixCache:
    """The prefixes that the waves of one engine have read last."""

    def __init__(self, *, usable: bool, least: int = LEAST, spared: int = SPARED) -> None:
        """Begin without any.

        Args:
            usable: whether prompts of the model may share a prefix.
            least: fewest tokens that are read as a prefix of their own.
            spared: fewest tokens that reading a prefix must spare.
        """
        self.usable, self._least, self._spared = usable, least, spared
        self._kept: list[Prefix] = []
        """The one used last is the last."""
        self._last: Ids = ()
        """What the prompts of the last wave had in common."""

    def find(self, prompts: Sequence[Ids], layers: frozenset[int]) -> tuple[Prefix | None, int]:
        """Find out what some prompts share.

        Args:
            prompts: of a wave.
            layers: those before which the prompts' states are noted.

        Returns:
            The known prefix that covers most, None if there is none; and how many tokens are to be read as a prefix of
            their own: 0 if the known one is all that is worth it.
        """
        if not self.usable:
            return None, 0
        common = shared(prompts)
        known = self._known(common, layers)
        covered = 0 if known is None else len(known.ids)
        target, readers = common, len(prompts)
        if readers == 1:  # a prefix of the last wave will be one of the next, too
            target, readers = common[: _agreement(common, self._last)], 2
        self._last = common
        return known, len(target) if self._pays(len(target) - covered, readers) else 0

    def tokens_read(self, prompts: Sequence[Ids]) -> int:
        """How many tokens a wave of these prompts runs, padding excluded, if nothing is known of them."""
        tokens, common = sum(map(len, prompts)), len(shared(prompts))
        spares = self.usable and self._pays(common, len(prompts))
        return tokens - common * (len(prompts) - 1) if spares else tokens

    def _pays(self, tokens: int, readers: int) -> bool:
        """Whether tokens are worth being read once instead of once for each of some prompts."""
        return tokens >= self._least and tokens * (readers - 1) >= self._spared

    def _known(self, common: Ids, layers: frozenset[int]) -> Prefix | None:
        """What is known of the beginning of a text; a prefix whose states are wanted is taken whole or not at all."""
        best, covered = None, self._least - 1
        for prefix in self._kept:
            count = _agreement(prefix.ids, common)
            whole = count == len(prefix.ids) and layers <= prefix.sums.layers
            if count > covered and (whole or not layers):
                best, covered = prefix, count
        if best is None:
            return None
        self._kept = [prefix for prefix in self._kept if prefix is not best] + [best]
        return Prefix(best.ids[:covered], best.cache, best.sums)

    def keep(self, prefix: Prefix) -> None:
        """Keep a prefix, instead of the one that was used longest ago."""
        self._kept = [*self._kept, prefix][-KEPT:]

    def forget(self) -> None:
        """Forget every prefix, and free the memory."""
        self._kept, self._last = [], ()

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(prefix.cache.nbytes() for prefix in self._kept)


def shared(prompts: Sequence[Ids]) -> Ids:
    """The longest common prefix of some prompts that leaves each at least one token."""
    first, last = min(prompts), max(prompts)  # what these two share, all between them share
    least = min(map(len, prompts)) - 1
    return first[: min(_agreement(first, last), least)]


def _agreement(one: Ids, other: Ids) -> int:
    """How many tokens two texts have in common at their beginning."""
    for count, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return count
    return min(len(one), len(other))
