"""KV policy `evict`: there are no keys and values; the token's position is masked in the layer."""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from torch import Tensor

from dlbench.engine.kv.past_tokens import Flags
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on


@final
class Evict(KVPolicy):
    """Makes no K and V: later tokens of the row do not attend to that column in that layer."""

    hides = True

    def __init__(self, cache: RowCache, span: int) -> None:
        super().__init__(cache, span)
        self._visible: dict[int, Tensor] = {}  # [B, T]
        self._evicted: dict[int, Flags] = {}  # [B, T]
        """The opposite, on the host, where it is counted: counting on the device would wait for it."""

    def affects(self, layer: int) -> bool:
        return layer in self._visible

    def skipped(self, layer: int, slots: Slots | None, hidden: Tensor) -> None:
        if layer not in self._visible:
            shape = self.cache.batch, self.cache.length
            self._visible[layer] = torch.ones(shape, dtype=torch.bool, device=hidden.device)
            self._evicted[layer] = np.zeros(shape, dtype=bool)
        if slots is None:
            self._visible[layer][: self.cache.alive, self.cache.seen] = False
        else:
            self._visible[layer][on(slots, hidden.device), self.cache.seen] = False
        self._evicted[layer][slice(self.cache.alive) if slots is None else slots, self.cache.seen] = True

    def visible(self, layer: int, rows: Tensor | None) -> Tensor | None:
        visible = self._visible.get(layer)
        if visible is None:
            return None
        visible = visible[: self.cache.alive] if rows is None else visible[rows]
        return visible[:, self.cache.first(layer) : self.cache.seen + 1]

    def hidden_count(self, layer: int, slots: Slots | None) -> Slots:
        evicted = self._evicted[layer][slice(self.cache.alive) if slots is None else slots]
        counts: Slots = evicted[:, self.cache.first(layer) : self.cache.seen + 1].sum(1)
        return counts

    def move(self, target: Slots, source: Slots) -> None:
        for visible in self._visible.values():
            visible[on(target, visible.device)] = visible[on(source, visible.device)]
        for evicted in self._evicted.values():
            evicted[target] = evicted[source]

    def clear(self, slots: Slots) -> None:
        for visible in self._visible.values():
            visible[on(slots, visible.device)] = True
        for evicted in self._evicted.values():
            evicted[slots] = False

    def shift(self, columns: int) -> None:
        for visible in self._visible.values():
            visible[:, :-columns] = visible[:, columns:].clone()
            visible[:, -columns:] = True
        for evicted in self._evicted.values():
            evicted[:, :-columns] = evicted[:, columns:].copy()
            evicted[:, -columns:] = False
