"""What a method sees of a forward under way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlbench.backbones import Backbone
from dlbench.engine import noise
from dlbench.engine.meter import TensorWork
from dlbench.errors import DlbenchError
from dlbench.families import resolve
from dlbench.method import View

if TYPE_CHECKING:
    from dlbench.engine.gate import Gates

TIGHT = {"float16": 0.03, "bfloat16": 0.25}
"""Margins below this are named in the samples; 1e-3 where the dtype is not listed."""


def tight_below(dtype: str) -> float:
    """The margin below which rounding may decide, for logits and scores of a dtype."""
    return TIGHT.get(dtype, 1e-3)


_PER = {"layer": 0, "token": 1, "sequence": 2}


def exit_head(backbone: Backbone, x: Tensor) -> Tensor:
    """Logits of states that leave the stack: the final norm, what follows it, and the soft cap of Gemma."""
    for path in backbone.family.head:
        module = resolve(backbone.model, path)
        x = x if module is None else module(x)
    cap = getattr(backbone.model.config, "final_logit_softcapping", None)
    return x if cap is None else torch.tanh(x / cap) * cap


class LiveView(View):
    """The engine's view: one object per decoding run, moved from layer to layer. Rows are the awake ones."""

    def __init__(
        self, depth: int, seed: int, keys: noise.Words, limits: NDArray[np.int64], rows: int, margin: float
    ) -> None:
        self.depth, self.layer, self.margin = depth, 0, margin
        self._step = 0
        self.seed, self.keys, self.limits = seed, keys, limits
        self.tight: list[list[tuple[int, float]]] = [[] for _ in range(rows)]
        """Decisions that were close, per row: (decode step, margin)."""
        self.promised = np.full((depth, rows), -1, dtype=np.int8)
        """What a per-sequence method answered first, per layer and row: the code, 0 not running, -1 not asked yet."""
        self.work: TensorWork | None = None
        self._noise: dict[tuple[int, int], NDArray[np.float64]] = {}

    def attach(self, gates: Gates) -> None:
        """Look at the forward that these gates are about to run."""
        self._gates = gates
        self._noise.clear()

    def at_step(self, step: int) -> None:
        """Set the decode step; -1 for a routed prompt."""
        self._step = step

    def arrive(self, layer: int, hidden: Tensor) -> None:
        """Stand before a layer. `hidden`: [alive, positions, width]."""
        self.layer, self._state = layer, hidden

    @property
    def count(self) -> int:
        """Tokens of the view."""
        return len(self._rows())

    def _rows(self) -> NDArray[np.int64]:
        gates = self._gates
        return gates.rows if gates.awake is None else gates.rows[gates.awake]

    def _pick(self, x: Tensor) -> Tensor:
        """Awake rows of [alive, 1, width], as a copy."""
        if self._step < 0:
            raise DlbenchError("a routed prompt shows no states: a method that reads them works per token")
        awake = self._gates.awake
        return x[:, 0].clone() if awake is None else x[torch.from_numpy(awake).to(x.device), 0]

    @property
    def hidden(self) -> Tensor:
        return self._pick(self._state)

    @property
    def embedded(self) -> Tensor:
        return self._pick(self._gates.embedded)

    @property
    def before(self) -> Tensor | None:
        trail = self._gates.trail
        if not trail:
            return None
        if trail[-1][0] is None:  # the usual case: everybody ran the last layer that anybody ran
            return self._pick(trail[-1][1])
        last = torch.zeros_like(self._state)
        for slots, hidden in trail:
            if slots is None:
                last = hidden
            else:
                index = torch.from_numpy(slots).to(hidden.device)
                last = last.index_copy(0, index, hidden[index])
        return self._pick(last)

    @property
    def row(self) -> Tensor:
        return torch.from_numpy(self._rows().copy()).to(self._state.device)

    @property
    def step(self) -> int:
        return self._step

    @property
    def position(self) -> Tensor:
        gates = self._gates
        starts = gates.starts if gates.awake is None else gates.starts[gates.awake]
        return torch.from_numpy(gates.cache.seen - starts).to(self._state.device)

    @property
    def limit(self) -> Tensor:
        return torch.from_numpy(self.limits[self._rows()]).to(self._state.device)

    def logits(self) -> Tensor:
        gates = self._gates
        x = self.hidden
        if self.work is not None:
            self.work.paused = True
        x = exit_head(gates.backbone, x)
        if self.work is not None:
            self.work.paused = False
        gates.ledger.exit_head(self._rows())
        return x

    def uniform(self, count: int = 1, per: Literal["layer", "token", "sequence"] = "layer") -> Tensor:
        if per == "layer":
            return torch.from_numpy(
                noise.uniform(self.keys[self._rows()], count, self.seed, _PER[per], self._step, self.layer)
            )
        at = (_PER[per], count)
        if at not in self._noise:  # once per step for all rows, whatever the number of layers that ask
            counters = (self.seed, _PER[per], self._step) if per == "token" else (self.seed, _PER[per])
            self._noise[at] = noise.uniform(self.keys, count, *counters)
        return torch.from_numpy(self._noise[at][self._rows()])

    def at_least(self, score: Tensor, threshold: float | Tensor) -> Tensor:
        margin = (score - threshold).abs()
        close = margin < self.margin
        if bool(close.any()):
            rows = self._rows()
            for i in close.nonzero()[:, 0].tolist():
                self.tight[rows[i]].append((self._step, float(margin[i])))
        return score >= threshold
