"""Tokens of earlier decode steps that a layer still has to process.

Shape letters: M past tokens, W model width, R rotary width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dlbench.engine.kv.storage import Places, Slots, on

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Past:
    """Past tokens that a layer has not processed yet, ordered by slot, then by column."""

    slots: Slots
    """[M], on the host."""
    steps: Slots
    """[M], the index of each among its row's decoded tokens, on the host."""
    columns: Slots
    """[M], columns of the cache, on the host."""
    states: Tensor
    """[M, W], what enters the layer."""

    @cached_property
    def run(self) -> bool:
        """Whether they are consecutive tokens of one slot."""
        return bool(self.slots[0] == self.slots[-1] and self.columns[-1] - self.columns[0] + 1 == len(self.columns))

    @cached_property
    def rows(self) -> Tensor:
        """`slots` on the device."""
        return on(self.slots, self.states.device)

    @cached_property
    def at(self) -> Tensor:
        """`columns` on the device."""
        return on(self.columns, self.states.device)

    @property
    def places(self) -> Places:
        """Slots and columns, in the form that the cache takes."""
        if self.run:
            return int(self.slots[0]), slice(int(self.columns[0]), int(self.columns[-1]) + 1)
        return self.rows, self.at

    def by_column(self) -> list[Past]:
        """Split by column, in ascending order."""
        parts = []
        for column in np.unique(self.columns):
            part = np.flatnonzero(self.columns == column)
            host = self.slots[part], self.steps[part], self.columns[part]
            parts.append(Past(*host, self.states[on(part, self.states.device)]))
        return parts


@dataclass(frozen=True)
class Owed:
    """Past tokens whose keys and values are missing in a layer, as a fused layer takes them along."""

    states: Tensor
    """What enters the layer: [M, W]."""
    angles: tuple[Tensor, ...] | None
    """Their rotary angles: each [M, 1, R]."""
    places: Places
    """Where their keys and values are stored."""
