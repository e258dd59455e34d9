"""Replace the `forward` of layers for a while, and the state within what a layer returns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn


@contextlib.contextmanager
def shadowed(layers: Mapping[int, nn.Module], around: Callable[..., Any]) -> Iterator[None]:
    """Replace the `forward` of layers while entered.

    Args:
        layers: modules by index.
        around: called as `around(index, forward, hidden, *args, **kwargs)`, with the layer's own `forward`.
    """
    before = {index: vars(layer).get("forward") for index, layer in layers.items()}  # accelerate's hooks are there
    try:
        for index, layer in layers.items():
            vars(layer)["forward"] = partial(around, index, layer.forward)
        yield
    finally:
        for index, layer in layers.items():
            if before[index] is None:
                vars(layer).pop("forward", None)
            else:
                vars(layer)["forward"] = before[index]


def state_of(given: Any) -> Tensor:
    """The state within what a layer returned; some families return a tuple."""
    state: Tensor = given[0] if isinstance(given, tuple) else given
    return state


def with_state(given: Any, state: Tensor) -> Any:
    """What a layer returned, with the state replaced."""
    return (state, *given[1:]) if isinstance(given, tuple) else state
