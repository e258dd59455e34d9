"""Take layers out of a model, so that what remains is an ordinary model of its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.models.families import Family, resolve

_NUMBERS = ("layer_idx", "layer_id")
"""Attributes by which modules know the number of their layer."""
_LISTED = ("mlp_only_layers", "moe_layers")
"""Settings that list numbers of layers."""


def prune(model: Any, family: Family, layers: Sequence[int]) -> None:
    """Leave only some layers in a model, numbered from 0, and make its configuration say so.

    Args:
        model: a loaded transformers model, changed in place.
        family: where its layers are.
        layers: numbers of the layers that stay, in order.

    Raises:
        DlbenchError: no configuration of the family describes what remains.
    """
    found = resolve(model, family.layers)
    depth, kept = len(found), [found[i] for i in layers]
    del found[:]
    for number, layer in enumerate(kept):
        found.append(layer)
        for module in layer.modules():
            for name in vars(module).keys() & set(_NUMBERS):
                setattr(module, name, number)
    config = model.config.get_text_config(decoder=True)
    kinds = list(getattr(config, "layer_types", None) or ())
    for name, value in list(vars(config).items()):
        if name in _LISTED:
            setattr(config, name, [new for new, old in enumerate(layers) if old in (value or ())])
        elif isinstance(value, list | tuple) and len(value) == depth:  # layer_types, and what else has one per layer
            setattr(config, name, type(value)(value[i] for i in layers))
    config.num_hidden_layers = len(layers)
    if len(kinds) == depth:
        _check_kinds(config, [kinds[i] for i in layers])


def _check_kinds(config: Any, kinds: list[str]) -> None:
    """Give the layers their kinds where the configuration works them out from a period.

    Raises:
        DlbenchError: no period gives these kinds.
    """
    if list(config.layer_types) == kinds:
        return
    for period in range(1, len(kinds) + 1) if hasattr(config, "attn_layer_period") else ():
        for offset in range(period):
            config.attn_layer_period, config.attn_layer_offset = period, offset
            if list(config.layer_types) == kinds:
                return
    raise DlbenchError(
        f"the layers that stay are {', '.join(kinds)}, and no configuration of {config.model_type} says so: take "
        "another set of layers"
    )
