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


class StateSums:
    """Sums of the states of a prefix before some layers, and of the normed states."""

    def __init__(self, layers: frozenset[int], tokens: int) -> None:
        """Begin with nothing.

        Args:
            layers: those to note.
            tokens: length of the prefix.
        """
        self.layers, self.tokens = layers, tokens
        self._of: dict[int, tuple[Tensor, Tensor]] = {}

    def note(self, layer: int, hidden: Tensor) -> None:
        """Keep the sums of the states that enter a layer, [1, positions, width], if it is one of those wanted."""
        if layer in self.layers:
            self._of[layer] = hidden[0].sum(0, dtype=torch.float32), normed(hidden[0]).sum(0)

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """The sum of the states and that of the normed states, [width] each in float32."""
        return self._of[layer]


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

    def note(self, layer: int, hidden: Tensor, rows: Slots, starts: Slots, prefix: StateSums | None = None) -> None:
        """Keep the states that enter a layer, if the layer is one of those wanted.

        Args:
            layer: the layer.
            hidden: [rows, positions, width]; positions before a prompt's start do not count.
            rows: indices of the prompts.
            starts: position of each prompt's first token, or of its first after the prefix.
            prefix: the states of tokens that all these prompts begin with; None if all tokens are in `hidden`.
        """
        if layer not in self.layers:
            return
        if layer not in self._last:
            for store in (self._last, self._mean, self._normed):
                store[layer] = hidden.new_zeros(self._rows, hidden.shape[-1])
        index, start = on(rows, hidden.device), on(starts, hidden.device)
        there = (torch.arange(hidden.shape[1], device=hidden.device) >= start[:, None])[..., None]
        count = hidden.shape[1] - start[:, None] + (0 if prefix is None else prefix.tokens)
        self._last[layer][index] = hidden[:, -1]
        before = None if prefix is None else prefix.of(layer)
        for i, (store, states) in enumerate(((self._mean, hidden), (self._normed, normed(hidden)))):
            total = torch.where(there, states, 0).sum(1, dtype=torch.float32)
            mean = (total if before is None else total + before[i]) / count
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
