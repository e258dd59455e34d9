"""Run one sub-layer of a stock layer: the attention or the feed-forward adds nothing to the residual stream.

A recurrent module counts as attention, be it in its place or beside it; where it is left out, its state stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from dlbench.engine.layers.shadowing import Forward, Shadows
from dlbench.method import Action
from dlbench.models.backbone import Backbone
from dlbench.models.experts import experts_of
from dlbench.models.families import attention_of, recurrent_of, resolve


@final
class Sublayers:
    """Replacements of attention and feed-forward, installed in a layer when one of them is first left out.

    The sub-layer that is left out is not computed. The norms around it still are: they cost no matrix product, and a
    norm without bias maps zeros to zeros. A layer that normalises after the residual (OPT-350m) does so all the same.
    """

    def __init__(self, backbone: Backbone, shadow: Callable[[nn.Module, Forward], None]) -> None:
        """Prepare.

        Args:
            backbone: whose layers.
            shadow: replaces a module's forward.
        """
        self._backbone, self._shadow = backbone, shadow
        self._installed: set[int] = set()
        self._left_out = Action.SKIP

    @contextmanager
    def only(self, layer: int, part: int) -> Iterator[None]:
        """Run only Action.ATTN or Action.MLP of a layer."""
        if layer not in self._installed:
            self._installed.add(layer)
            self._install(layer)
        self._left_out = Action.RUN & ~Action(part)
        try:
            yield
        finally:
            self._left_out = Action.SKIP

    def _install(self, index: int) -> None:
        family, layer = self._backbone.family, self._backbone.layers[index]
        if (attention := attention_of(family, layer)) is not None:
            self._shadow(attention, partial(self._attention, attention.forward))
        if (recurrent := recurrent_of(family, layer)) is not None:
            self._shadow(recurrent, partial(self._recurrent, recurrent.forward))
        modules = [resolve(layer, path) for path in family.mlp]
        if len(modules) == 1:
            experts = experts_of(self._backbone, index)
            more = experts is not None and experts.returns_tuple
            self._shadow(modules[0], partial(self._mlp, more, modules[0].forward))
            return
        first, last = modules
        self._shadow(first, partial(self._first, first.forward))
        self._shadow(last, partial(self._last, last.out_features, last.forward))

    def _attention(self, forward: Forward, *args: Any, **kwargs: Any) -> Any:
        if not self._left_out & Action.ATTN:
            return forward(*args, **kwargs)
        family = self._backbone.family
        if "attention" in family.adds_residual:
            nothing = args[1] if len(args) > 1 else kwargs["residual"]
        else:
            nothing = torch.zeros_like(args[0] if args else kwargs["hidden_states"])
        return (nothing, *[None] * (family.attention_outputs - 1)) if family.attention_outputs > 1 else nothing

    def _recurrent(self, forward: Forward, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self._left_out & Action.ATTN:
            return torch.zeros_like(hidden_states)
        return forward(hidden_states, *args, **kwargs)

    def _mlp(self, more: bool, forward: Forward, hidden: Tensor, *args: Any) -> Any:
        """Run the feed-forward or return nothing to add, beside None where it returns `more` than the state."""
        if not self._left_out & Action.MLP:
            return forward(hidden, *args)
        nothing = args[0] if "mlp" in self._backbone.family.adds_residual else torch.zeros_like(hidden)
        return (nothing, None) if more else nothing

    # A feed-forward written inline: the first map gives the activation an empty input, the last one returns zeros.

    def _first(self, forward: Forward, hidden: Tensor) -> Any:
        return hidden[..., :0] if self._left_out & Action.MLP else forward(hidden)

    def _last(self, width: int, forward: Forward, hidden: Tensor) -> Any:
        if self._left_out & Action.MLP:
            return hidden.new_zeros(*hidden.shape[:-1], width)
        return forward(hidden)


@contextmanager
def sublayers_of(backbone: Backbone) -> Iterator[Sublayers]:
    """Make sub-layers of a backbone's layers run alone, within the context."""
    shadows = Shadows()
    try:
        yield Sublayers(backbone, shadows.put)
    finally:
        shadows.undo()
