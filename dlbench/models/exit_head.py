"""The exit head: from hidden states to logits, after any layer."""

from __future__ import annotations

import torch
from torch import Tensor

from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve


def exit_head(backbone: Backbone, x: Tensor) -> Tensor:
    """Logits of hidden states: the final norm, the LM head with what stands between, and Gemma's soft cap."""
    return capped(raw_head(backbone, x), soft_cap(backbone))


def raw_head(backbone: Backbone, x: Tensor) -> Tensor:
    """Logits of hidden states before the soft cap, with Granite's scaling."""
    for path in backbone.family.head:
        module = resolve(backbone.model, path)
        x = x if module is None else module(x)
    scaling = getattr(backbone.model.config, "logits_scaling", None)
    return x if scaling is None else x / scaling


def soft_cap(backbone: Backbone) -> float | None:
    """The bound that the model's soft cap keeps logits within (`final_logit_softcapping`); None without one."""
    cap: float | None = getattr(backbone.model.config, "final_logit_softcapping", None)
    return cap


def capped(x: Tensor, cap: float | None) -> Tensor:
    """Apply a soft cap to logits, if there is one."""
    return x if cap is None else torch.tanh(x / cap) * cap
