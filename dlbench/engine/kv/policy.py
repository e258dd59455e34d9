"""KV policies: what happens to the keys and values of tokens that skipped a layer.

A policy is one class in one file of `dlbench/engine/kv/policies/`; the file's name is the policy's name.

Shape letters: B slots, S decoded tokens of a row, W model width, M past tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import numpy as np
from torch import Tensor

from dlbench.engine.kv.past_tokens import Flags, Past
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on


class KVPolicy(ABC):
    """The policy of one decoding run.

    What a policy keeps per token is indexed by the token's step within its row: columns of the cache may move.
    """

    allows_skips: ClassVar[bool] = True
    """Whether a token may skip a layer and run a later one; False: a token may only exit."""
    reruns: ClassVar[bool] = False
    """Whether due past tokens run the whole layer; False: only their keys and values are made."""
    from_states: ClassVar[bool] = False
    """Whether keys and values of a token that skips a layer are made as if it ran it: of the state before the layer."""
    hides: ClassVar[bool] = False
    """Whether columns without keys and values are masked in a layer."""
    states_overwritten: bool = False
    """Whether states handed to `skipped` are overwritten by the next forward, so that they must be copied."""

    def __init__(self, cache: RowCache, span: int) -> None:
        """Prepare.

        Args:
            cache: the run's.
            span: S, most tokens that a row may decode.
        """
        self.cache, self.span = cache, span

    @final
    @property
    def name(self) -> str:
        """The name of the policy's file."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def affects(self, layer: int) -> bool:
        """Whether tokens may be due in a layer, or columns hidden; if not, the layer runs as usual."""

    @abstractmethod
    def skipped(self, layer: int, slots: Slots | None, hidden: Tensor) -> None:
        """Note which rows' present tokens make no keys and values in a layer.

        Args:
            layer: the layer.
            slots: those rows; None for all living ones.
            hidden: [alive, 1, W], what would have entered the layer; kept without a copy unless `states_overwritten`.
        """

    def due(self, layer: int, slots: Slots | None) -> Past | None:
        """Past tokens of these rows that the layer must process before their next token runs it; due once only."""
        return None

    def processed(self, layer: int, past: Past, states: Tensor) -> None:
        """Take the outputs of a layer for past tokens, [M, W]; called only if `reruns`."""
        raise NotImplementedError

    def visible(self, layer: int, rows: Tensor | None) -> Tensor | None:
        """Whether each column has keys and values, [rows, first..now]; None where all have."""
        return None

    def hidden_count(self, layer: int, slots: Slots | None) -> Slots:
        """How many of those columns each slot lacks, [slots]; called only where `visible` gives a tensor."""
        raise NotImplementedError

    @abstractmethod
    def move(self, target: Slots, source: Slots) -> None:
        """Copy what slots `source` hold to slots `target`, all at once."""

    @abstractmethod
    def clear(self, slots: Slots) -> None:
        """Forget what these slots held: other rows have taken them."""

    def shift(self, columns: int) -> None:
        """All columns of the cache have moved to the left by so many; what is indexed by step stays."""
        return

    @final
    def _past(self, due: Flags, slots: Slots | None, states: Tensor) -> Past | None:
        """Past tokens flagged in `due` [alive, steps], with their states from a table [B, S, W]."""
        host, steps = np.nonzero(due if slots is None else due[slots])
        if not len(host):
            return None
        if slots is not None:
            host = slots[host]
        columns = self.cache.bases[host] + steps
        places = on(host * self.span + steps, states.device)
        return Past(host, steps, columns, states.flatten(0, 1).index_select(0, places))

    @final
    def _put(self, table: Tensor, slots: Slots, hidden: Tensor) -> None:
        """Store `hidden` [len(slots), 1, W] in a table [B, S, W] as the states of these slots' present tokens."""
        steps = self.cache.steps[slots]
        table[on(slots, table.device), on(steps, table.device)] = hidden[:, 0]
