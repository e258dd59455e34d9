"""Make the fused steps of a model's layers, and prove each of them as exact as the stock layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlbench.engine.kernels.equivalence import TOLERANCE, difference
from dlbench.engine.kernels.fused_layer import FusedLayer
from dlbench.engine.kernels.layer_specs import RECIPES, Recipe
from dlbench.engine.kernels.linear import shared_memory
from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve


class NotFused(Exception):
    """These layers have no fused step; the message says why, in one line."""


def fuse(backbone: Backbone) -> list[FusedLayer]:
    """Make the fused steps of all layers, each proved as exact as the stock layer on random states.

    Projections that run together become neighbours in memory; parameters keep their identity and values.

    Raises:
        NotFused: the family has no recipe, the model is not plain, or a layer's results differ.
    """
    recipe, shared = _recipe(backbone), shared_memory(backbone.model)
    fused = []
    for index, layer in enumerate(backbone.layers):
        try:
            with torch.inference_mode(next(layer.parameters()).is_inference()), torch.no_grad():
                _examine(layer, recipe, shared)
                fused.append(FusedLayer(layer, recipe, backbone))
            with torch.inference_mode():
                gap, what = difference(layer, fused[index], backbone, index)
        except NotFused as error:
            raise NotFused(f"layer {index}: {error}") from error
        except Exception as error:
            raise NotFused(f"layer {index}: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
        if not gap <= 1:
            raise NotFused(f"layer {index}: {what} {gap:.3g} times as far from the exact result as is allowed")
    return fused


def _recipe(backbone: Backbone) -> Recipe:
    config = backbone.model.config
    if backbone.kind not in RECIPES:
        raise NotFused(f"no recipe for layers of {backbone.kind}")
    recipe = RECIPES[backbone.kind]
    if recipe.needs is not None and not getattr(config, recipe.needs):
        raise NotFused(f"no recipe for {backbone.kind} without {recipe.needs}")
    if config._attn_implementation != "sdpa":
        raise NotFused(f"attention is {config._attn_implementation}, not sdpa")
    return recipe


def _examine(layer: Any, recipe: Recipe, shared: set[int]) -> None:
    """Make sure that a layer's modules do nothing beside their own arithmetic.

    Raises:
        NotFused: the message names the first that does.
    """
    for name, module in layer.named_modules():
        if module.training:
            raise NotFused("the model is in training mode")
        if "forward" in vars(module):
            raise NotFused(f"the forward of {name or 'the layer'} is replaced")
        if name and (module._forward_hooks or module._forward_pre_hooks):
            raise NotFused(f"{name} has hooks")
    dtypes = set()
    for group in (recipe.qkv, (recipe.out,), recipe.up, (recipe.down,)):
        modules = {name: resolve(layer, name) for name in group}
        for name, module in modules.items():
            if type(module) not in (nn.Linear, Conv1D):
                raise NotFused(f"{name} is a {type(module).__name__}, not a plain linear map")
            for p in module.parameters():
                if type(p) is not nn.Parameter or p.dtype not in TOLERANCE or p.is_meta or not p.is_contiguous():
                    raise NotFused(f"{name} has no plain floating-point weights")
                if len(group) > 1 and p.data_ptr() in shared:
                    raise NotFused(f"{name} shares its weights")
                dtypes.add(p.dtype)
        if len({m.bias is None for m in modules.values()}) > 1:
            raise NotFused(f"of {', '.join(group)} some have a bias")
    if len(dtypes) > 1:
        raise NotFused("weights of several dtypes")
