"""Memory of keys and values that outlives a wave, so that the next wave can replay graphs captured over it."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from dataclasses import dataclass
from typing import final

from dlbench.engine.kernels.cuda_graphs import GraphSteps, Recorder, Work
from dlbench.engine.kernels.fused_model import FusedModel
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import KeyValues
from dlbench.system.device_memory import ran_out

_COLUMNS = 64
"""Lengths are multiples of this: fast attention kernels need masks with aligned rows."""


@dataclass
class _Memory:
    steps: GraphSteps
    layers: frozenset[int] | None
    """Layers that may have keys and values in it; None for all."""
    user: weakref.ref[RowCache]
    """The cache that uses it; gone when the wave is."""

    @property
    def idle(self) -> bool:
        return self.user() is None

    def nbytes(self) -> int:
        return self.steps.memory.nbytes() + self.steps.nbytes()


@final
class GraphPool:
    """All captured steps of an engine, by the memory that they work on."""

    def __init__(self, model: FusedModel, record: Recorder) -> None:
        self._model, self._record = model, record
        self._memories: list[_Memory] = []
        self.failed = ""
        """Why a step could not be captured; empty if none failed. After a failure nothing more is captured.

        Present waves keep their steps, which then run without graphs: only they know the angles of past tokens. Later
        waves decode by the fused model's own steps.
        """

    def assign(self, cache: RowCache, layers: Collection[int] | None) -> None:
        """Give an empty cache free memory of the pool, or new memory; it is free again when the cache is gone.

        Args:
            cache: has not been written to.
            layers: layers that may have keys and values; None for all.
        """
        if self.failed:
            return
        kept = None if layers is None else frozenset(layers)
        memory = self._free(cache, kept)
        if memory is None:
            self.release()
            space = KeyValues(cache.batch + 1, -(-cache.length // _COLUMNS) * _COLUMNS)
            memory = _Memory(GraphSteps(self._model, space, self._recorded), kept, weakref.ref(cache))
            self._memories.append(memory)
        for x in memory.steps.memory:
            x.zero_()
        memory.user, cache.memory = weakref.ref(cache), memory.steps.memory

    def _free(self, cache: RowCache, layers: frozenset[int] | None) -> _Memory | None:
        """The smallest free memory that is large enough."""
        fit = [
            p
            for p in self._memories
            if p.idle and p.layers == layers and p.steps.spare >= cache.batch and p.steps.memory.length >= cache.length
        ]
        return min(fit, key=lambda p: p.steps.memory.slots * p.steps.memory.length, default=None)

    def steps_of(self, cache: RowCache, policy: KVPolicy | None) -> GraphSteps | None:
        """The captured steps of a cache; None where it has none, or they do not support the KV policy."""
        if policy is not None and (policy.hides or policy.reruns):
            return None
        return next((p.steps for p in self._memories if p.steps.memory is cache.memory), None)

    def _recorded(self, work: Work) -> Work:
        """What replays some work; the work itself where it cannot be captured."""
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
        """Free the memory that no wave uses."""
        self._memories = [p for p in self._memories if not p.idle]

    def idle_bytes(self) -> int:
        """Memory that no wave uses now, in bytes."""
        return sum(p.nbytes() for p in self._memories if p.idle)
