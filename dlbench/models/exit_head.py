"""The exit head: from hidden states to logits, after any layer."""

from __future__ import annotations

import torch
from torch import Tensor

from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve


def exit_head(backbone: Backbone, x: Tensor) -> Tensor:
    """Logits of hidden states: the final norm, the LM head with what stands between, and what follows it."""
    return finished(backbone, raw_head(backbone, x))


def raw_head(backbone: Backbone, x: Tensor) -> Tensor:
    """Logits of hidden states as the LM head computes them."""
    for path in backbone.family.head:
        module = resolve(backbone.model, path)
        x = x if module is None else module(x)
    return x


def finished(backbone: Backbone, x: Tensor) -> Tensor:
    """What the model makes of the LM head's logits: Cohere scales them, Granite divides them, Gemma 2 caps them."""
    config, family = backbone.config, backbone.family
    if family.logit_scale is not None:
        x = x * getattr(config, family.logit_scale)
    if family.logit_divisor is not None:
        x = x / getattr(config, family.logit_divisor)
    return capped(x, soft_cap(backbone))


def soft_cap(backbone: Backbone) -> float | None:
    """The bound that the model's soft cap keeps logits within (`final_logit_softcapping`); None without one."""
    cap: float | None = getattr(backbone.config, "final_logit_softcapping", None)
    return cap


def capped(x: Tensor, cap: float | None) -> Tensor:
    """Apply a soft cap to logits, if there is one."""
    return x if cap is None else torch.tanh(x / cap) * cap
