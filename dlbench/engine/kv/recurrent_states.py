"""States of recurrent layers, one per slot: a row that skips such a layer leaves its state as it was.

A state has no positions, so it cannot go back to an earlier column: what must return to one keeps a copy.

Shape letters: B slots, C channels, K kernel, N new tokens.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers.cache_utils import Cache

from dlbench.engine.kv.storage import Slots, copy_rows, on

_Key = tuple[int, str]
"""A layer, and "conv" for the last inputs of its convolution or "recurrent" for what it has summed up."""


class RecurrentStates(dict[_Key, Tensor]):
    """The states of all layers, [B, ...] each, allocated at a layer's first write."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self._slots = slots

    def table(self, key: _Key, like: Tensor) -> Tensor:
        """The states of a layer, allocated as zeros if there are none yet: [B, ...].

        Args:
            key: the layer and the kind of state.
            like: [rows, ...], of the same dtype and device.
        """
        if key not in self:
            self[key] = like.new_zeros(self._slots, *like.shape[1:])
        return self[key]

    def copies(self) -> dict[_Key, Tensor]:
        """Copy every state."""
        return {key: states.clone() for key, states in self.items()}

    def restore(self, copies: dict[_Key, Tensor]) -> None:
        """Put copies back; states that did not exist when these were made are zero again."""
        for key, states in self.items():
            states.copy_(copies[key]) if key in copies else states.zero_()

    def admit(self, slots: Slots, source: RecurrentStates, places: Slots, layers: Collection[int] | None) -> None:
        """Copy slots `places` of another cache's states to `slots`, in some layers; None for all."""
        for key, theirs in source.items():
            if layers is None or key[0] in layers:
                copy_rows(self.table(key, theirs), slots, theirs, places)

    def move(self, target: Slots, source: Slots) -> None:
        """Copy slots `source` to slots `target`, all at once: the two may overlap."""
        for states in self.values():
            states[on(target, states.device)] = states[on(source, states.device)]

    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return sum(states.nbytes for states in self.values())


class RecurrentCache(Cache):
    """What recurrent layers ask of transformers' cache, for the rows that run them."""

    seen: int
    alive: int
    _rows: Tensor | None
    """Slots that run the layer; None for all living ones."""

    def __init__(self, slots: int) -> None:
        super().__init__(layers=[])
        self.states = RecurrentStates(slots)
        self._lent: dict[_Key, Tensor] = {}
        """Copies of states of the selected rows, which a layer may change in place."""

    def is_recording_past(self, layer_idx: int) -> bool:
        return False

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> bool:
        return self.seen > 0 and (layer_idx, "conv") in self.states

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """The last inputs of a layer's convolution, [rows, C, K]; None where a text begins."""
        return self._state((layer_idx, "conv"))

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> Tensor | None:
        """What a layer has summed up, [rows, ...]; None where a text begins."""
        return self._state((layer_idx, "recurrent"))

    def update_conv_state(
        self, conv_states: Tensor, layer_idx: int, state_idx: int = 0, conv_kernel_size: int = 0, **_: Any
    ) -> Tensor:
        """Store the last K inputs where a text begins; returns all, with zeros before them if they are fewer.

        Args:
            conv_states: [rows, C, N].
            layer_idx: the layer.
            state_idx: 0.
            conv_kernel_size: K.
        """
        assert self._state((layer_idx, "conv")) is None, "several tokens at once can only begin a text"
        whole = functional.pad(conv_states, (max(conv_kernel_size - conv_states.shape[-1], 0), 0))
        self._store((layer_idx, "conv"), whole[..., -conv_kernel_size:])
        return whole

    def update_recurrent_state(self, recurrent_states: Tensor, layer_idx: int, state_idx: int = 0, **_: Any) -> Tensor:
        """Store what a layer has summed up, [rows, ...], and return it."""
        self._store((layer_idx, "recurrent"), recurrent_states)
        return recurrent_states

    def _state(self, key: _Key) -> Tensor | None:
        if not self.seen or key not in self.states:
            return None
        if self._rows is None:
            return self.states[key][: self.alive]
        self._lent[key] = self.states[key][self._rows]
        return self._lent[key]

    def _store(self, key: _Key, states: Tensor) -> None:
        self._lent.pop(key, None)
        where = slice(self.alive) if self._rows is None else self._rows
        self.states.table(key, states)[where] = states

    def _take_back(self) -> None:
        """Store the states that were lent, for the rows that they were lent for."""
        while self._lent:
            self._store(*next(iter(self._lent.items())))
