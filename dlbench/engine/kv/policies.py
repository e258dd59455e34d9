"""What becomes of the keys and values that a skipped token does not make: one class per policy.

    project    they are made of the state that passed the layer by, when a later token of the row first needs them
    evict      they are never made: that position is masked in the layer
    recompute  a token that exited is carried through the layers it missed, exactly, before a later token runs them

Shape letters: B slots, S decoded tokens of a row, W model width, M past tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Places, Slots, on

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Past:
    """Past tokens that a layer still has to see."""

    slots: Slots
    """[M], on the host."""
    steps: Slots
    """[M] which of their row's decoded tokens they are, on the host."""
    columns: Slots
    """[M] columns of the cache, on the host."""
    states: Tensor
    """[M, W], what enters the layer."""

    @cached_property
    def run(self) -> bool:
        """Whether they are neighbours of one slot; slot by slot, each in order, they always stand."""
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
        """Slots and columns, as the cache takes them."""
        if self.run:
            return int(self.slots[0]), slice(int(self.columns[0]), int(self.columns[-1]) + 1)
        return self.rows, self.at

    def by_column(self) -> list[Past]:
        """The same, those of one column together."""
        found = []
        for column in np.unique(self.columns):
            part = np.flatnonzero(self.columns == column)
            host = self.slots[part], self.steps[part], self.columns[part]
            found.append(Past(*host, self.states[on(part, self.states.device)]))
        return found


@dataclass(frozen=True)
class Owed:
    """Past tokens whose keys and values a layer still lacks."""

    states: Tensor
    """What enters the layer: [M, W]."""
    angles: tuple[Tensor, ...] | None
    """Their rotary angles: each [M, 1, R]."""
    places: Places
    """Where they are kept."""


class Debts(ABC):
    """The policy of one decoding run; what it keeps per slot is told by the row's own steps, not by columns."""

    skips: ClassVar[bool] = True
    """Whether a token may pass a layer by and run a later one."""
    volatile: bool = False
    """Whether states that are handed in are written over in the next forward."""
    attends: ClassVar[bool] = False
    """Whether past tokens run the whole layer, or make their keys and values only."""
    hides: ClassVar[bool] = False
    """Whether columns are hidden from a layer."""

    def __init__(self, cache: RowCache, span: int) -> None:
        """Prepare.

        Args:
            cache: the run's.
            span: S, most tokens that a row may decode.
        """
        self.cache, self.span = cache, span

    @abstractmethod
    def concern(self, layer: int) -> bool:
        """Whether anybody may owe a layer anything, or be hidden in it; where not, it is run as it stands."""

    @abstractmethod
    def passed(self, layer: int, slots: Slots | None, hidden: Tensor) -> None:
        """Note who makes no keys and values in a layer.

        Args:
            layer: the layer.
            slots: those rows; None for all alive.
            hidden: [alive, 1, W], what would have entered it; kept as it is, unless it is volatile.
        """

    def due(self, layer: int, slots: Slots | None) -> Past | None:
        """Past tokens of these rows that the layer must see before their next token runs it; marked as settled."""
        return None

    def settled(self, layer: int, past: Past, states: Tensor) -> None:
        """Take what past tokens became in a layer, [M, W]; only where they attend."""
        raise NotImplementedError

    def seen(self, layer: int, rows: Tensor | None) -> Tensor | None:
        """Columns with keys and values, [rows, first..now], True where there are; None where all have them."""
        return None

    def hidden(self, layer: int, slots: Slots | None) -> Slots:
        """How many of these columns each slot lacks, of all alive or of some: [slots]; only where `seen` tells them."""
        raise NotImplementedError

    @abstractmethod
    def move(self, target: Slots, source: Slots) -> None:
        """Slots `target` take what slots `source` held; both at once."""

    @abstractmethod
    def clear(self, slots: Slots) -> None:
        """Forget what these slots held: other rows have taken them."""

    def shift(self, columns: int) -> None:
        """Every column has moved to the left by so many; what is told by steps stays."""
        return

    @abstractmethod
    def nbytes(self) -> int:
        """Memory held, in bytes."""

    def _past(self, due: Flags, slots: Slots | None, states: Tensor) -> Past | None:
        host, steps = np.nonzero(due if slots is None else due[slots])
        if not len(host):
            return None
        if slots is not None:
            host = slots[host]
        columns = self.cache.bases[host] + steps
        places = on(host * self.span + steps, states.device)
        return Past(host, steps, columns, states.flatten(0, 1).index_select(0, places))

    def _put(self, states: Tensor, slots: Slots, hidden: Tensor) -> None:
        """Keep `hidden` [len(slots), 1, W] as the states of these slots' present tokens."""
        steps = self.cache.steps[slots]
        states[on(slots, states.device), on(steps, states.device)] = hidden[:, 0]


class Project(Debts):
    """K and V of the passing state, made when first needed.

    As long as all rows pass a layer together, as at batch 1, the states are kept as they are; where rows part ways they
    move to a table.
    """

    def __init__(self, cache: RowCache, span: int) -> None:
        super().__init__(cache, span)
        self._together: dict[int, list[tuple[int, Tensor]]] = {}
        """Per layer what everybody owes, since everybody last paid: the step, and states of the first slots."""
        self._states: dict[int, Tensor] = {}  # [B, S, W]
        self._owed: dict[int, Flags] = {}  # [B, S]

    def concern(self, layer: int) -> bool:
        return layer in self._together or layer in self._states

    def passed(self, layer: int, slots: Slots | None, hidden: Tensor) -> None:
        cache = self.cache
        if slots is None and cache.level and layer not in self._states:
            kept = hidden.clone() if self.volatile else hidden
            self._together.setdefault(layer, []).append((cache.seen - int(cache.bases[0]), kept))
            return
        states, owed = self._table(layer, hidden)
        if cache.level:
            now = cache.seen - int(cache.bases[0])
            states[: cache.alive, now] = hidden[:, 0]  # of every row: what nobody owes is never read
            owed[slice(cache.alive) if slots is None else slots, now] = True
        else:
            steps = cache.steps
            chosen = np.arange(len(steps)) if slots is None else slots
            self._put(states, chosen, hidden if slots is None else hidden[on(slots, hidden.device)])
            owed[chosen, steps[chosen]] = True

    def due(self, layer: int, slots: Slots | None) -> Past | None:
        together = self._together.get(layer)
        if together is not None and slots is None:
            del self._together[layer]
            return self._of_all(together)
        if together is None and layer not in self._states:
            return None
        states, owed = self._table(layer)
        past = self._past(owed[: self.cache.alive, : int(self.cache.steps.max())], slots, states)
        if past is not None:
            owed[past.slots, past.steps] = False
        return past

    def _of_all(self, together: list[tuple[int, Tensor]]) -> Past:
        alive, count = self.cache.alive, len(together)
        steps = np.array([step for step, _ in together])
        states = torch.cat([hidden[:alive] for _, hidden in together], 1).flatten(0, 1)
        host, steps = np.repeat(np.arange(alive), count), np.tile(steps, alive)
        return Past(host, steps, self.cache.bases[host] + steps, states)

    def _table(self, layer: int, like: Tensor | None = None) -> tuple[Tensor, Flags]:
        """States and flags of a layer, each slot for itself."""
        if layer not in self._states:
            together = self._together.pop(layer, [])
            like = together[0][1] if like is None else like
            states = self._states[layer] = like.new_empty(self.cache.batch, self.span, like.shape[-1])
            owed = self._owed[layer] = np.zeros((self.cache.batch, self.span), dtype=bool)
            for step, hidden in together:
                states[: len(hidden), step] = hidden[:, 0]
                owed[: len(hidden), step] = True
        return self._states[layer], self._owed[layer]

    def _part_ways(self) -> None:
        for layer in list(self._together):
            self._table(layer)

    def move(self, target: Slots, source: Slots) -> None:
        self._part_ways()
        for owed in self._owed.values():
            owed[target] = owed[source]
        for states in self._states.values():
            states[on(target, states.device)] = states[on(source, states.device)]

    def clear(self, slots: Slots) -> None:
        self._part_ways()
        for owed in self._owed.values():
            owed[slots] = False

    def nbytes(self) -> int:
        kept = [*self._states.values(), *(hidden for several in self._together.values() for _, hidden in several)]
        return sum(t.numel() * t.element_size() for t in kept)


class Evict(Debts):
    """No K and V: a later token of the row does not attend to the column in that layer."""

    hides = True

    def __init__(self, cache: RowCache, span: int) -> None:
        super().__init__(cache, span)
        self._there: dict[int, Tensor] = {}  # [B, T]
        self._gone: dict[int, Flags] = {}  # [B, T]
        """The opposite on the host, where they are counted: the device would be waited for."""

    def concern(self, layer: int) -> bool:
        return layer in self._there

    def passed(self, layer: int, slots: Slots | None, hidden: Tensor) -> None:
        if layer not in self._there:
            shape = self.cache.batch, self.cache.length
            self._there[layer] = torch.ones(shape, dtype=torch.bool, device=hidden.device)
            self._gone[layer] = np.zeros(shape, dtype=bool)
        if slots is None:
            self._there[layer][: self.cache.alive, self.cache.seen] = False
        else:
            self._there[layer][on(slots, hidden.device), self.cache.seen] = False
        self._gone[layer][slice(self.cache.alive) if slots is None else slots, self.cache.seen] = True

    def seen(self, layer: int, rows: Tensor | None) -> Tensor | None:
        there = self._there.get(layer)
        if there is None:
            return None
        there = there[: self.cache.alive] if rows is None else there[rows]
        return there[:, self.cache.first(layer) : self.cache.seen + 1]

    def hidden(self, layer: int, slots: Slots | None) -> Slots:
        gone = self._gone[layer][slice(self.cache.alive) if slots is None else slots]
        found: Slots = gone[:, self.cache.first(layer) : self.cache.seen + 1].sum(1)
        return found

    def move(self, target: Slots, source: Slots) -> None:
        for there in self._there.values():
            there[on(target, there.device)] = there[on(source, there.device)]
        for gone in self._gone.values():
            gone[target] = gone[source]

    def clear(self, slots: Slots) -> None:
        for there in self._there.values():
            there[on(slots, there.device)] = True
        for gone in self._gone.values():
            gone[slots] = False

    def shift(self, columns: int) -> None:
        for there in self._there.values():
            there[:, :-columns] = there[:, columns:].clone()
            there[:, -columns:] = True
        for gone in self._gone.values():
            gone[:, :-columns] = gone[:, columns:].copy()
            gone[:, -columns:] = False

    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in self._there.values())


class Recompute(Debts):
    """A token that exited goes on, as if it had not, when a later token of its row runs deeper: exact, and charged."""

    skips = False
    attends = True
    _GONE = -1

    def __init__(self, cache: RowCache, span: int) -> None:
        super().__init__(cache, span)
        self._states: Tensor | None = None  # [B, S, W]
        self._before = np.full((cache.batch, span), self._GONE, dtype=np.int32)
        """The layer that each token stands before; -1 where it has run all, or does not exist."""

    def concern(self, layer: int) -> bool:
        return self._states is not None

    def passed(self, layer: int, slots: Slots | None, hidden: Tensor) -> None:
        if self._states is None:
            self._states = hidden.new_empty(self.cache.batch, self.span, hidden.shape[-1])
        steps = self.cache.steps
        if slots is None:
            slots = np.arange(len(steps))
        left = slots[self._before[slots, steps[slots]] == self._GONE]  # those that left just here
        if len(left):
            self._before[left, steps[left]] = layer
            self._put(self._states, left, hidden[on(left, hidden.device)])

    def due(self, layer: int, slots: Slots | None) -> Past | None:
        if self._states is None:
            return None
        steps = self.cache.steps
        waiting = self._before[: len(steps), : int(steps.max())] == layer
        return self._past(waiting, slots, self._states)

    def settled(self, layer: int, past: Past, states: Tensor) -> None:
        assert self._states is not None
        self._states[past.rows, on(past.steps, states.device)] = states
        last = layer + 1 == len(self.cache.windows)
        self._before[past.slots, past.steps] = self._GONE if last else layer + 1

    def move(self, target: Slots, source: Slots) -> None:
        self._before[target] = self._before[source]
        if self._states is not None:
            device = self._states.device
            self._states[on(target, device)] = self._states[on(source, device)]

    def clear(self, slots: Slots) -> None:
        self._before[slots] = self._GONE

    def nbytes(self) -> int:
        return 0 if self._states is None else self._states.numel() * self._states.element_size()


POLICIES: dict[str, type[Debts]] = {"project": Project, "evict": Evict, "recompute": Recompute}


def add_to_mask(mask: Any, there: Tensor, *, additive: bool, dtype: torch.dtype) -> Tensor:
    """A layer's mask [.., 1, 1, keys], or None, that also hides the positions where `there` [rows, keys] is False."""
    there = there[:, None, None, :]
    if mask is None and not additive:
        return there
    if mask is None:
        mask = torch.zeros((), dtype=dtype, device=there.device)
    if mask.dtype == torch.bool:
        return mask & there  # type: ignore[no-any-return]
    return torch.where(there, mask, torch.finfo(mask.dtype).min)
