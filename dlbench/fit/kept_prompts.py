"""Prompts of references that are read once at full depth: their keys and values, and their states before each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from dlbench.engine.layers.rotary_tables import RowAngles
from dlbench.engine.routing.prompt_states import PromptStates
from dlbench.models.backbone import Backbone
from dlbench.models.layer_patch import shadowed
from dlbench.prompting.teacher_forcing import Example, Parted, read_prompts
from dlbench.system import process_group
from dlbench.system.device_memory import free_bytes

SHARE = 0.25
"""Share of the free memory that kept prompts may take."""


@dataclass(frozen=True)
class States:
    """States of prompts, by layer; see `dlbench.method.Prompt`."""

    depth: int
    count: int
    lasts: dict[int, Tensor]
    means: dict[int, Tensor]
    normed_means: dict[int, Tensor]

    def last(self, layer: int) -> Tensor:
        return self.lasts[layer]

    def mean(self, layer: int) -> Tensor:
        return self.means[layer]

    def normed_mean(self, layer: int) -> Tensor:
        return self.normed_means[layer]


@dataclass(frozen=True)
class _Row:
    """One prompt."""

    caches: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer: [heads, tokens, width of a head]."""
    states: dict[str, Tensor]
    """Last, mean and mean of the normed states before each layer: [depth, width] each."""


@dataclass
class KeptPrompts:
    """Keys, values and states of prompts, kept for all fits on one task and backbone."""

    _rows: dict[tuple[int, ...], _Row] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._rows)

    def missing(self, examples: Sequence[Example]) -> list[Example]:
        """Examples whose prompts have not been read."""
        return [e for e in examples if tuple(e.prompt) not in self._rows]

    def can_keep(self, backbone: Backbone, examples: Sequence[Example]) -> bool:
        """Whether the prompts of examples may be kept: they fit the memory, and are the same in any text.

        Not kept are caches other than plain keys and values, such as those of windows, and keys whose rotary angles
        depend on the length of the text.
        """
        layers = DynamicCache(config=backbone.model.config).layers
        plain = len(layers) == backbone.depth and all(type(layer) is DynamicLayer for layer in layers)
        if not plain or RowAngles.of(backbone) is not None:
            return False
        tokens = sum(len(e.prompt) for e in self.missing(examples))
        free = free_bytes(backbone.device, process_group.size())
        return tokens * backbone.depth * backbone.cache_bytes <= SHARE * free

    def of(self, backbone: Backbone, examples: Sequence[Example]) -> tuple[DynamicCache, States, int]:
        """Read the prompts that have not been read, and put those of a batch together.

        Args:
            backbone: the model.
            examples: rows of the batch.

        Returns:
            Their keys and values, left-padded as in `Parted`; their states; and the number of tokens that were read.
        """
        new = self.missing(examples)
        if new:
            self._read(backbone, new)
        rows = [self._rows[tuple(e.prompt)] for e in examples]
        columns = max(len(e.prompt) for e in examples)
        cache = DynamicCache(config=backbone.model.config)
        for layer in range(backbone.depth):
            keys, values = (torch.stack([_padded(row.caches[layer][i], columns) for row in rows]) for i in (0, 1))
            cache.update(keys, values, layer)
        states = [
            {i: torch.stack([row.states[kind][i] for row in rows]) for i in range(backbone.depth)} for kind in KINDS
        ]
        return cache, States(backbone.depth, len(rows), *states), sum(len(e.prompt) for e in new)

    @torch.no_grad()
    def _read(self, backbone: Backbone, examples: Sequence[Example]) -> None:
        batch = Parted.of(examples).to(backbone.device)
        columns = batch.prompt.shape[1]
        starts = np.array([columns - len(e.prompt) for e in examples])
        states = PromptStates(backbone.depth, len(examples), frozenset(range(backbone.depth)))

        def note(index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            states.note(index, hidden, np.arange(len(starts)), starts)
            return forward(hidden, *args, **kwargs)

        layers = read_prompts(backbone, batch, shadowed(dict(enumerate(backbone.layers)), note)).layers
        kept = {kind: [getattr(states, kind)(layer) for layer in range(backbone.depth)] for kind in KINDS}
        for row, (e, start) in enumerate(zip(examples, starts.tolist(), strict=True)):
            pairs = [
                (layer.keys[row, :, start:].clone(), layer.values[row, :, start:].clone())
                for layer in layers
                if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None
            ]
            of_row = {kind: torch.stack([state[row].to(backbone.device) for state in kept[kind]]) for kind in KINDS}
            self._rows[tuple(e.prompt)] = _Row(pairs, of_row)


KINDS = ("last", "mean", "normed_mean")


def _padded(x: Tensor, columns: int) -> Tensor:
    """Zeros before keys or values: [heads, tokens, width] → [heads, columns, width]."""
    return torch.nn.functional.pad(x, (0, 0, columns - x.shape[1], 0))
