"""What a model's attention depends on beside its weights: the windows of its layers and its rotary angles."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from transformers.cache_utils import DynamicCache

from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve


def windows(config: Any, depth: int) -> list[int | None]:
    """Per layer, how many positions a token attends to, itself included; None for all."""
    stock = [getattr(layer, "sliding_window", None) for layer in DynamicCache(config=config).layers]
    return stock if len(stock) == depth else [None] * depth


def rotary_module(backbone: Backbone) -> Any:
    """The module that computes a model's rotary angles; None where the model has none."""
    return getattr(resolve(backbone.model, backbone.family.layers.rpartition(".")[0]), "rotary_emb", None)


def stateless_copy(module: Any) -> Any:
    """Copy a rotary module so that the copy shares no buffers with it.

    The copy has none of accelerate's hooks, which may hold all weights of the model.
    """
    made = copy.copy(module)
    state = vars(made)
    for name in ("forward", "_old_forward", "_hf_hook"):
        state.pop(name, None)
    state["_buffers"] = {name: buffer.clone() for name, buffer in module._buffers.items()}
    return made


def depends_on_length(rope_type: str) -> bool:
    """Whether rotary angles of this type (transformers' `rope_type`) depend on the length of the text."""
    return rope_type == "longrope" or "dynamic" in rope_type


def rope_types(module: Any) -> dict[tuple[str, ...], str]:
    """The `rope_type` of a rotary module, by the extra arguments of its forward: one, or one per type of layer."""
    given = getattr(module, "rope_type", "default")
    return {(layer,): kind for layer, kind in given.items()} if isinstance(given, Mapping) else {(): str(given)}


def rotary_of(backbone: Backbone) -> Any:
    """The model's rotary module, or a copy where the module keeps state between calls; None where there is none."""
    module = rotary_module(backbone)
    return stateless_copy(module) if any(map(depends_on_length, rope_types(module).values())) else module


def kind_of(backbone: Backbone, rotary: Any, index: int) -> tuple[str, ...]:
    """Extra arguments of the rotary module for a layer: the layer's type, where angles differ by type, else none."""
    differs = "layer_type" in inspect.signature(rotary.forward).parameters
    return (backbone.config.layer_types[index],) if differs else ()
