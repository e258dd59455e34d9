"""The stock layer as a `LayerStep`: whole, one sub-layer of it, or only the keys and values of past tokens."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from dlbench.engine.kv.past_tokens import Owed, Past
from dlbench.engine.kv.storage import Slots
from dlbench.engine.layers.shadowing import Shadows
from dlbench.engine.layers.sublayers import Sublayers
from dlbench.method import Action
from dlbench.models.families import Family, attention_of, recurrent_of, resolve

_RUN = int(Action.RUN)


def cache_name(layer: Any) -> str:
    """The name of the cache among the arguments of a layer's forward."""
    parameters = inspect.signature(type(layer).forward).parameters
    return next(name for name in ("layer_past", "past_key_values", "cache") if name in parameters)


@final
class StockLayer:
    """Calls a stock layer's own forward, as it was before the gates replaced it."""

    merges = False
    own_angles = False
    run_rows = None
    run_some = None

    def __init__(self, index: int, layer: nn.Module, family: Family, sublayers: Sublayers) -> None:
        self.index, self._sublayers = index, sublayers
        self._forward, self._cache = layer.forward, cache_name(layer)
        attends = attention_of(family, layer) is not None
        self._queries: list[Any] = [resolve(layer, path) for path in family.query] if attends else []
        self._recurrent = recurrent_of(family, layer) if attends else None
        self.filling = False
        """Whether only keys and values are being made."""

    def __call__(self, hidden: Tensor, *, part: int = _RUN, owed: Owed | None = None, **kwargs: Any) -> Any:
        """Run the layer, or a sub-layer of it; returns what the stock layer returns."""
        assert owed is None
        if part == _RUN:
            return self._forward(hidden, **kwargs)
        with self._sublayers.only(self.index, part):
            return self._forward(hidden, **kwargs)

    def fill_past(self, past: Past, positions: Slots, kwargs: dict[str, Any]) -> None:
        """Make keys and values of past tokens: the cache ends the layer once they are stored."""
        self.filling = True
        try:
            with kwargs[self._cache].past(past.rows, past.at):
                self._forward(past.states[:, None], **kwargs)
        finally:
            self.filling = False

    def install(self, shadows: Shadows) -> None:
        """Let query projections, and a state beside keys and values, rest while only these are made."""
        for query in self._queries:
            shadows.put(query, partial(self._project_query, query.forward, query.out_features))
        if self._recurrent is not None:
            shadows.put(self._recurrent, partial(self._recur, self._recurrent.forward))

    def _recur(self, forward: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return torch.zeros_like(hidden_states) if self.filling else forward(hidden_states, *args, **kwargs)

    def _project_query(self, forward: Any, width: int, hidden: Tensor) -> Any:
        return hidden.new_zeros(*hidden.shape[:-1], width) if self.filling else forward(hidden)
