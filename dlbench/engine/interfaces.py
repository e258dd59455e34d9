"""Interfaces between the parts of the engine: what decides about rows, how a layer runs, how a model's step runs.

Shape letters: M past tokens, W model width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from dlbench.engine.flops.extra import Extra
from dlbench.engine.flops.ledger import Ledger
from dlbench.engine.kv.past_tokens import Owed, Past
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots

Groups = list[tuple[int, Slots | None]]
"""Which part of a layer (an Action) runs for which slots; None stands for all living ones."""
NOBODY: Slots = np.zeros(0, dtype=np.int64)


class Plan(ABC):
    """Decides in every forward of a run which rows run which part of a layer."""

    kv_policy: KVPolicy | None = None
    """The policy for skipped tokens; None where no row ever runs a layer that it has skipped."""
    live: frozenset[int] | None = None
    """Layers that may run; None for all."""
    scale: Tensor | None = None
    """Multiplies what the layer adds to the state, or what `passing` tokens get instead: [alive]."""
    resumes: bool = False
    """Whether a layer may be entered by another state than the output of the layer below."""
    bypasses: bool = False
    """Whether `passing` tokens may go through another module instead of a layer."""
    known: Sequence[tuple[Slots, Tensor]] = ()
    """Slots whose logits need not be computed, with these logits, as the LM head gives them."""

    @abstractmethod
    def begin(self, cache: RowCache, ledger: Ledger) -> None:
        """Start a forward of the cache's living rows."""

    @abstractmethod
    def decide(self, layer: int, hidden: Tensor) -> Groups:
        """Decide which rows run which part of a layer that `hidden` [alive, positions, W] would enter.

        Raises:
            DlbenchError: the method fails, gives no valid answer, or breaks its declared scope or live layers.
        """

    def enters(self, layer: int, hidden: Tensor) -> Tensor:
        """The state that enters a layer; called only if `resumes`."""
        return hidden

    def ran(self, slots: Slots | None, hidden: Tensor) -> None:
        """Note that some rows, or all, have run a layer that `hidden` entered."""
        return

    def bypass(self, layer: int) -> nn.Module | None:
        """The module that `passing` tokens go through instead of a layer; called only if `bypasses`."""
        return None

    def bypass_failed(self, layer: int, error: Exception) -> Exception:
        """What to raise when that module fails."""
        return RuntimeError(f"layer {layer}: {error}")

    def passing(self, groups: Groups) -> Slots:
        """Slots of tokens that skip the whole layer, but have not exited."""
        return NOBODY


class RunRows(Protocol):
    """Runs a part of a layer for some rows: `into` [alive, 1, W] with their new states in place of the old ones."""

    def __call__(self, hidden: Tensor, slots: Slots, part: int, into: Tensor) -> Tensor: ...


class RunSome(Protocol):
    """Runs a whole layer for some rows, and makes keys and values of all, at the same place in their texts.

    Takes states that enter [alive, 1, W], slots of the rows that run it, past tokens as `LayerStep` does, the stock
    layer's other arguments, and whether keys and values of the other rows are needed: if not, they may be left out.
    Gives states that leave, [alive, 1, W], those of the other rows unchanged.
    """

    def __call__(
        self, hidden: Tensor, slots: Slots, owed: Owed | None, kwargs: dict[str, Any], kept: bool
    ) -> tuple[Tensor, Extra]: ...


class LayerStep(Protocol):
    """How one layer runs: the stock layer, a fused one, or a fused one captured in CUDA graphs."""

    @property
    def merges(self) -> bool:
        """Whether `owed` past tokens can share the layer's products with the new tokens."""
        ...

    @property
    def own_angles(self) -> bool:
        """Whether it looks up the rotary angles of past tokens itself."""
        ...

    @property
    def run_rows(self) -> RunRows | None:
        """Runs some rows without their states being gathered first; None where they must be gathered."""
        ...

    @property
    def run_some(self) -> RunSome | None:
        """Runs some rows, and makes keys and values of all together; None where it cannot."""
        ...

    def __call__(self, hidden: Tensor, *, part: int = ..., owed: Owed | None = None, **kwargs: Any) -> Any:
        """Run the layer, or a part of it (an Action): states [rows, positions, W] -> the same, or a stock tuple.

        Args:
            hidden: states that enter.
            part: RUN, ATTN or MLP.
            owed: past tokens whose keys and values are made first; only if `merges`.
            **kwargs: the stock layer's other arguments.
        """
        ...

    def fill_past(self, past: Past, positions: Slots, kwargs: dict[str, Any]) -> None:
        """Make keys and values of past tokens, and nothing else.

        Args:
            past: M tokens.
            positions: of these in their texts, [M].
            kwargs: the stock layer's arguments for these tokens.
        """
        ...


class FusedStep(LayerStep, Protocol):
    """A `LayerStep` made for decode steps."""

    @property
    def several(self) -> bool:
        """Whether it may also run where rows have several new tokens."""
        ...


class LayerGates(Protocol):
    """The gates, as a whole model's step calls them."""

    routing: Plan | None

    def layer(self, index: int, step: LayerStep, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
        """Run one layer for the rows that run it: [alive, positions, W] -> the same."""
        ...


class ModelStep(Protocol):
    """One decode step of a whole model, instead of the model's own forward."""

    def step(self, gates: LayerGates, ids: Tensor, cache: RowCache) -> Tensor:
        """Run one new token per living row: ids [alive, 1] -> logits [alive, V].

        Args:
            gates: run the layers; a forward has begun.
            ids: the tokens.
            cache: holds the living rows, and takes the new keys and values.
        """
        ...
