"""The stock layer as a `LayerStep`: whole, one sub-layer of it, or only the keys and values of past tokens."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, final

from torch import Tensor, nn

from dlbench.engine.kv.past_tokens import Owed, Past
from dlbench.engine.kv.storage import Slots
from dlbench.engine.layers.shadowing import Shadows
from dlbench.engine.layers.sublayers import Sublayers
from dlbench.method import Action
from dlbench.models.families import Family, resolve

_RUN = int(Action.RUN)


def cache_name(layer: Any) -> str:
    """The name of the cache among the arguments of a layer's forward."""
    return "layer_past" if "layer_past" in inspect.signature(type(layer).forward).parameters else "past_key_values"


@final
class StockLayer:
    """Calls a stock layer's own forward, as it was before the gates replaced it."""

    merges = False
    own_angles = False
    run_rows = None

    def __init__(self, index: int, layer: nn.Module, family: Family, sublayers: Sublayers) -> None:
        self.index, self._sublayers = index, sublayers
        self._forward, self._cache = layer.forward, cache_name(layer)
        self._query = None if family.query is None else resolve(layer, family.query)
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
        """Let the query projection do nothing while only keys and values are made."""
        if self._query is not None:
            shadows.put(self._query, partial(self._project_query, self._query.forward, self._query.out_features))

    def _project_query(self, forward: Any, width: int, hidden: Tensor) -> Any:
        return hidden.new_zeros(*hidden.shape[:-1], width) if self.filling else forward(hidden)
