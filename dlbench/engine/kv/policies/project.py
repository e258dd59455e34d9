"""KV policy `project`: keys and values come from the hidden state that skipped the layer."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from dlbench.engine.kv.past_tokens import Flags, Past
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on


@final
class Project(KVPolicy):
    """Makes K and V of the state that skipped the layer, when a later token of the row first needs them.

    While all rows skip a layer together, as at batch 1, states are kept as they come; once rows differ, they move to a
    table. Where a layer makes keys and values of all rows at once (`RunSome`), nothing is kept.
    """

    from_states = True

    def __init__(self, cache: RowCache, span: int) -> None:
        super().__init__(cache, span)
        self._together: dict[int, list[tuple[int, Tensor]]] = {}
        """Per layer, what every row has skipped since K and V were last made: step, and states of the first slots."""
        self._states: dict[int, Tensor] = {}  # [B, S, W]
        self._missing: dict[int, Flags] = {}  # [B, S]

    def affects(self, layer: int) -> bool:
        if layer not in self._missing:
            return layer in self._together
        return bool(self._missing[layer][: self.cache.alive].any())

    def skipped(self, layer: int, slots: Slots | None, hidden: Tensor) -> None:
        cache = self.cache
        if slots is None and cache.level and layer not in self._states:
            kept = hidden.clone() if self.states_overwritten else hidden
            self._together.setdefault(layer, []).append((cache.seen - int(cache.bases[0]), kept))
            return
        states, missing = self._table(layer, hidden)
        if cache.level:
            now = cache.seen - int(cache.bases[0])
            states[: cache.alive, now] = hidden[:, 0]  # of every row: states that are not missing are never read
            missing[slice(cache.alive) if slots is None else slots, now] = True
        else:
            steps = cache.steps
            chosen = np.arange(len(steps)) if slots is None else slots
            self._put(states, chosen, hidden if slots is None else hidden[on(slots, hidden.device)])
            missing[chosen, steps[chosen]] = True

    def due(self, layer: int, slots: Slots | None) -> Past | None:
        together = self._together.get(layer)
        if together is not None and slots is None:
            del self._together[layer]
            return self._of_all(together)
        if together is None and layer not in self._states:
            return None
        states, missing = self._table(layer)
        past = self._past(missing[: self.cache.alive, : int(self.cache.steps.max())], slots, states)
        if past is not None:
            missing[past.slots, past.steps] = False
        return past

    def _of_all(self, together: list[tuple[int, Tensor]]) -> Past:
        alive, count = self.cache.alive, len(together)
        steps = np.array([step for step, _ in together])
        states = torch.cat([hidden[:alive] for _, hidden in together], 1).flatten(0, 1)
        host, steps = np.repeat(np.arange(alive), count), np.tile(steps, alive)
        return Past(host, steps, self.cache.bases[host] + steps, states)

    def _table(self, layer: int, like: Tensor | None = None) -> tuple[Tensor, Flags]:
        """States and flags of a layer, row by row."""
        if layer not in self._states:
            together = self._together.pop(layer, [])
            like = together[0][1] if like is None else like
            states = self._states[layer] = like.new_empty(self.cache.batch, self.span, like.shape[-1])
            missing = self._missing[layer] = np.zeros((self.cache.batch, self.span), dtype=bool)
            for step, hidden in together:
                states[: len(hidden), step] = hidden[:, 0]
                missing[: len(hidden), step] = True
        return self._states[layer], self._missing[layer]

    def _separate_rows(self) -> None:
        for layer in list(self._together):
            self._table(layer)

    def move(self, target: Slots, source: Slots) -> None:
        self._separate_rows()
        for missing in self._missing.values():
            missing[target] = missing[source]
        for states in self._states.values():
            states[on(target, states.device)] = states[on(source, states.device)]

    def clear(self, slots: Slots) -> None:
        self._separate_rows()
        for missing in self._missing.values():
            missing[slots] = False
