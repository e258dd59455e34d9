"""Hidden states of prompts, kept for methods while the prompts are read."""

from __future__ import annotations

import torch
from torch import Tensor

from dlbench.engine.kv.storage import Slots, on
from dlbench.errors import DlbenchError


def normed(hidden: Tensor) -> Tensor:
    """RMSNorm without a weight: states of mean square 1, [..., width] in float32."""
    hidden = hidden.float()
    return hidden * hidden.square().mean(-1, keepdim=True).add(1e-6).rsqrt()


class PromptStates:
    """The last and the mean state of each prompt before some layers; see `dlbench.method.Prompt`."""

    def __init__(self, depth: int, rows: int, layers: frozenset[int]) -> None:
        self.depth, self.layers, self._rows = depth, layers, rows
        self._last: dict[int, Tensor] = {}
        self._mean: dict[int, Tensor] = {}
        self._normed: dict[int, Tensor] = {}

    @property
    def count(self) -> int:
        return self._rows

    def note(self, layer: int, hidden: Tensor, rows: Slots, starts: Slots) -> None:
        """Keep the states that enter a layer, if the layer is one of those wanted.

        Args:
            layer: the layer.
            hidden: [rows, positions, width], left-padded.
            rows: indices of the prompts.
            starts: column of each prompt's first token.
        """
        if layer not in self.layers:
            return
        if layer not in self._last:
            for store in (self._last, self._mean, self._normed):
                store[layer] = hidden.new_zeros(self._rows, hidden.shape[-1])
        index, start = on(rows, hidden.device), on(starts, hidden.device)
        there = (torch.arange(hidden.shape[1], device=hidden.device) >= start[:, None])[..., None]
        count = hidden.shape[1] - start[:, None]
        self._last[layer][index] = hidden[:, -1]
        for store, states in ((self._mean, hidden), (self._normed, normed(hidden))):
            mean = torch.where(there, states, 0).sum(1, dtype=torch.float32) / count
            store[layer][index] = mean.to(hidden.dtype)

    def last(self, layer: int) -> Tensor:
        return self._of(self._last, layer)

    def mean(self, layer: int) -> Tensor:
        return self._of(self._mean, layer)

    def normed_mean(self, layer: int) -> Tensor:
        return self._of(self._normed, layer)

    def _of(self, store: dict[int, Tensor], layer: int) -> Tensor:
        if layer not in store:
            raise DlbenchError(f"the prompts' states before layer {layer} were not kept; a method names it in reads()")
        return store[layer].clone()
