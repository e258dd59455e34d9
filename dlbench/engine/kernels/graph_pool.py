"""Memory of keys and values that outlives the waves, so that what was captured over it is of use to the next."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from dataclasses import dataclass

from dlbench.engine.kernels.cuda_graphs import Recorder, Steps, Work
from dlbench.engine.kernels.fused_model import Stack
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import KeyValues
from dlbench.engine.routing.method_plan import Plan
from dlbench.system.device_memory import ran_out

_COLUMNS = 64
"""Lengths are multiples of this: the fast kernels want masks whose rows are aligned."""


@dataclass
class _Place:
    steps: Steps
    layers: frozenset[int] | None
    """Layers that may have keys and values in it; None for all."""
    user: weakref.ref[RowCache]

    @property
    def idle(self) -> bool:
        return self.user() is None

    def nbytes(self) -> int:
        return self.steps.memory.nbytes() + self.steps.nbytes()


class Captures:
    """All captured steps of an engine, by the memory that they work on."""

    def __init__(self, stack: Stack, record: Recorder) -> None:
        self._stack, self._record = stack, record
        self._places: list[_Place] = []
        self.failed = ""
        """Why a step could not be captured; from then on none is.

        Waves under way keep their steps, whose works then run as they stand: they alone know the positions of what is
        owed. Later waves decode by plain steps.
        """

    def settle(self, cache: RowCache, layers: Collection[int] | None) -> None:
        """Give an empty cache memory that is free, or new memory; it is free again when the cache is gone.

        Args:
            cache: has not been written to.
            layers: those that may keep keys and values; None for all.
        """
        if self.failed:
            return
        kept = None if layers is None else frozenset(layers)
        place = self._free(cache, kept)
        if place is None:
            self.release()
            memory = KeyValues(cache.batch + 1, -(-cache.length // _COLUMNS) * _COLUMNS)
            place = _Place(Steps(self._stack, memory, self._recorded), kept, weakref.ref(cache))
            self._places.append(place)
        for x in place.steps.memory:
            x.zero_()
        place.user, cache.memory = weakref.ref(cache), place.steps.memory

    def _free(self, cache: RowCache, layers: frozenset[int] | None) -> _Place | None:
        """The smallest free place that is large enough."""
        fit = [
            p
            for p in self._places
            if p.idle and p.layers == layers and p.steps.spare >= cache.batch and p.steps.memory.length >= cache.length
        ]
        return min(fit, key=lambda p: p.steps.memory.slots * p.steps.memory.length, default=None)

    def of(self, cache: RowCache, routing: Plan | None) -> Steps | None:
        """The captured steps of a cache; None where it has none, or a policy wants what they do not do."""
        debts = None if routing is None else routing.debts
        if debts is not None and (debts.hides or debts.attends):
            return None
        return next((p.steps for p in self._places if p.steps.memory is cache.memory), None)

    def _recorded(self, work: Work) -> Work:
        """What replays a work; the work itself where it cannot be captured."""
        if self.failed:
            return work
        try:
            return self._record(work)
        except RuntimeError as error:
            if ran_out(error):
                raise
            self.failed = f"not captured: {str(error).partition(chr(10))[0]}"
            return work

    def release(self) -> None:
        """Let go of what no wave uses."""
        self._places = [p for p in self._places if not p.idle]

    def idle_bytes(self) -> int:
        """Memory that no wave uses and the next may have, in bytes."""
        return sum(p.nbytes() for p in self._places if p.idle)
