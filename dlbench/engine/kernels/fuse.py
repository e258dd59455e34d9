"""Make the fused layers of a model, and check that each is as exact as the stock layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlbench.engine.kernels.equivalence import TOLERANCE, difference
from dlbench.engine.kernels.fused_layer import FusedLayer
from dlbench.engine.kernels.layer_specs import LAYER_SPECS, LayerSpec
from dlbench.engine.kernels.linear import shared_memory
from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve


class NotFused(Exception):
    """A model's layers cannot be fused; the message says why, in one line."""


def fuse(backbone: Backbone) -> list[FusedLayer]:
    """Make the fused layers of all stock layers, each checked on random states.

    Projections that run together become adjacent in memory; parameters keep their identity and values.

    Raises:
        NotFused: the model type has no row of LAYER_SPECS, the model was altered, or a layer's results differ.
    """
    spec, shared = _spec(backbone), shared_memory(backbone.model)
    fused = []
    for index, layer in enumerate(backbone.layers):
        try:
            with torch.inference_mode(next(layer.parameters()).is_inference()), torch.no_grad():
                _examine(layer, spec, shared)
                fused.append(FusedLayer(layer, spec, backbone))
            with torch.inference_mode():
                gap, what = difference(layer, fused[index], backbone, index)
        except NotFused as error:
            raise NotFused(f"layer {index}: {error}") from error
        except Exception as error:
            raise NotFused(f"layer {index}: {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
        if not gap <= 1:
            raise NotFused(f"layer {index}: {what} {gap:.3g} times as far from the exact result as is allowed")
    return fused


def _spec(backbone: Backbone) -> LayerSpec:
    config = backbone.model.config
    if backbone.kind not in LAYER_SPECS:
        raise NotFused(f"no fused layers for models of type {backbone.kind}")
    spec = LAYER_SPECS[backbone.kind]
    if spec.needs is not None and not getattr(config, spec.needs):
        raise NotFused(f"no fused layers for {backbone.kind} without {spec.needs}")
    if config._attn_implementation != "sdpa":
        raise NotFused(f"attention is {config._attn_implementation}, not sdpa")
    return spec


def _examine(layer: Any, spec: LayerSpec, shared: set[int]) -> None:
    """Check that a layer's modules compute nothing but what their type says.

    Raises:
        NotFused: one may; the message names the first.
    """
    for name, module in layer.named_modules():
        if module.training:
            raise NotFused("the model is in training mode")
        if "forward" in vars(module):
            raise NotFused(f"the forward of {name or 'the layer'} is replaced")
        if name and (module._forward_hooks or module._forward_pre_hooks):
            raise NotFused(f"{name} has hooks")
    dtypes = set()
    for group in (spec.qkv, (spec.out,), spec.up, (spec.down,)):
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
