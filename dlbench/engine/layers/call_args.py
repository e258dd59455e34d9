"""One call of a layer, and the arguments of the same layer for past tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlbench.engine.interfaces import LayerStep
from dlbench.engine.kv.masks import take
from dlbench.engine.kv.past_tokens import Past
from dlbench.engine.kv.storage import Slots, on


@dataclass(slots=True)
class LayerCall:
    """A call of one layer for all living rows."""

    index: int
    step: LayerStep
    hidden: Tensor
    """States that enter: [alive, positions, W]."""
    kwargs: dict[str, Any]
    """The stock layer's other arguments."""

    def for_past(self, past: Past, positions: Slots, angles: tuple[Tensor, ...] | None) -> dict[str, Any]:
        """The arguments for M past tokens, one batch entry each, without a mask.

        Args:
            past: the tokens.
            positions: of these in their texts, [M].
            angles: their rotary angles; None where the layer takes none.
        """
        new = dict(self.kwargs)
        if new.get("position_ids") is not None:
            new["position_ids"] = on(positions, past.states.device)[:, None]
        if angles is not None:
            new["position_embeddings"] = angles[0] if isinstance(new["position_embeddings"], Tensor) else angles
        new["attention_mask"] = None
        if new.get("alibi") is not None:
            new["alibi"] = take(new["alibi"], past.rows, len(self.hidden))
        return new
