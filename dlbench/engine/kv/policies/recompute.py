"""KV policy `recompute`: a token that exited runs the layers it missed once a later token of its row needs them."""

from __future__ import annotations

from typing import final

import numpy as np
from torch import Tensor

from dlbench.engine.kv.past_tokens import Past
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on


@final
class Recompute(KVPolicy):
    """Runs exited tokens through the layers they missed before a later token of the row runs these: exact, and charged.

    For methods that only exit: a token that skips a layer in the middle has no exact state to go on from.
    """

    allows_skips = False
    reruns = True
    _NONE = -1

    def __init__(self, cache: RowCache, span: int) -> None:
        super().__init__(cache, span)
        self._states: Tensor | None = None  # [B, S, W]
        self._next_layer = np.full((cache.batch, span), self._NONE, dtype=np.int32)
        """The next layer of each token that exited; -1 where it has run all layers, or does not exist."""

    def affects(self, layer: int) -> bool:
        return self._states is not None

    def skipped(self, layer: int, slots: Slots | None, hidden: Tensor) -> None:
        if self._states is None:
            self._states = hidden.new_empty(self.cache.batch, self.span, hidden.shape[-1])
        steps = self.cache.steps
        if slots is None:
            slots = np.arange(len(steps))
        exiting = slots[self._next_layer[slots, steps[slots]] == self._NONE]  # those that exited before this layer
        if len(exiting):
            self._next_layer[exiting, steps[exiting]] = layer
            self._put(self._states, exiting, hidden[on(exiting, hidden.device)])

    def due(self, layer: int, slots: Slots | None) -> Past | None:
        if self._states is None:
            return None
        steps = self.cache.steps
        waiting = self._next_layer[: len(steps), : int(steps.max())] == layer
        return self._past(waiting, slots, self._states)

    def processed(self, layer: int, past: Past, states: Tensor) -> None:
        assert self._states is not None
        self._states[past.rows, on(past.steps, states.device)] = states
        last = layer + 1 == len(self.cache.windows)
        self._next_layer[past.slots, past.steps] = self._NONE if last else layer + 1

    def move(self, target: Slots, source: Slots) -> None:
        self._next_layer[target] = self._next_layer[source]
        if self._states is not None:
            device = self._states.device
            self._states[on(target, device)] = self._states[on(source, device)]

    def clear(self, slots: Slots) -> None:
        self._next_layer[slots] = self._NONE
