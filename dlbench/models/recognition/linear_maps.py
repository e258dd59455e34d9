"""Linear maps of models: which modules are one, and what they cost."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

_OF_FAMILIES = "transformers.models."
"""Where classes of families are: their experts name the sizes of one of several matrices (Aria)."""


def is_linear(module: Any) -> bool:
    """Whether a module is a linear map: torch's, GPT-2's, or of a quantised checkpoint and of any class with sizes."""
    return isinstance(module, (nn.Linear, Conv1D)) or _packed(module)


def _packed(module: Any) -> bool:
    """Whether a module is a linear map of a class of its own, as those of GPTQ and AWQ are."""
    sizes = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (
        all(isinstance(size, int) for size in sizes)
        and not type(module).__module__.startswith(_OF_FAMILIES)
        and not any(map(is_linear, module.children()))
    )


def linear_flops(module: nn.Module | None) -> int:
    """FLOPs of all linear maps inside a module, per token."""
    if module is None:
        return 0
    return sum(2 * _products(part) for part in module.modules() if is_linear(part))


def _products(linear: Any) -> int:
    """Products per token of a linear map; quantised weights may be packed, so that they have fewer elements."""
    return int(linear.weight.numel() if isinstance(linear, Conv1D) else linear.in_features * linear.out_features)
