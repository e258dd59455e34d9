"""Norms in few calls, for decode steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Map = Callable[[Tensor], Tensor]


def epsilon(module: Any) -> float:
    """The epsilon that a norm adds to the mean square, under whichever name the module has it."""
    return float(module.variance_epsilon if hasattr(module, "variance_epsilon") else module.eps)


def norm(module: Any, offset: float) -> Map:
    """A norm over the last dimension."""
    if isinstance(module, nn.LayerNorm):
        shape, weight, bias, eps = module.normalized_shape, module.weight, module.bias, module.eps
        return lambda x: F.layer_norm(x, shape, weight, bias, eps)
    return root_norm(module.weight, epsilon(module), offset)


def root_norm(weight: Tensor, eps: float, offset: float) -> Map:
    """Root-mean-square norm over the last dimension; the weight may have further dimensions, such as heads."""
    width = weight.shape[-1]
    if weight.dtype is torch.float32 and weight.is_cpu:
        # x / sqrt(|x|² / n + eps) = x sqrt(n) / hypot(|x|, sqrt(n eps)): half the time of torch's rms_norm
        scaled = (weight.detach() + offset) * math.sqrt(width)
        floor = torch.tensor(math.sqrt(width * eps))
        return lambda x: x.mul(scaled).div_(torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), floor))
    if weight.ndim == 1 and not offset:
        return lambda x: F.rms_norm(x, (width,), weight, eps)
    exact = weight.detach().float() + offset
    return lambda x: F.rms_norm(x.float(), (width,), None, eps).mul_(exact).to(x.dtype)
