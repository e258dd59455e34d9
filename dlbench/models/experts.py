"""Feed-forwards with experts: what a token costs in the experts that it uses.

Modules do not tell which weights a token meets, and routers do not always heed the configuration, so a few random
states are run and their products counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve
from dlbench.models.recognition.linear_maps import is_linear, linear_flops

_TOKENS = 3
"""Random tokens whose FLOPs are compared with those of one token."""


@dataclass(frozen=True)
class Experts:
    """What one token costs in a feed-forward with experts."""

    flops: int
    """FLOPs of the router, of the experts that the token uses, and of those that all tokens share."""
    executed: int
    """FLOPs that the module computes; more where it computes every expert and masks those that were not chosen."""
    width: int
    """Elements of the widest state within the experts, all experts that are computed for the token together."""
    returns_tuple: bool
    """Whether the module returns more than the new state."""


_measured: WeakKeyDictionary[nn.Module, Experts] = WeakKeyDictionary()


def experts_of(backbone: Backbone, index: int) -> Experts | None:
    """Measure the feed-forward of a layer, once; None where it has no experts.

    Raises:
        DlbenchError: its FLOPs per token depend on the token.
    """
    layer, paths = backbone.layers[index], backbone.family.mlp
    if len(paths) > 1 or not _has_experts(module := resolve(layer, paths[0])):
        return None
    if module not in _measured:
        _measured[module] = _measure(backbone, index, module)
    return _measured[module]


def _has_experts(module: nn.Module) -> bool:
    """Whether a module has matrices outside linear maps, or a list of modules."""
    return any(
        isinstance(part, nn.ModuleList)
        or (not is_linear(part) and any(p.ndim > 1 for p in part.parameters(recurse=False)))
        for part in module.modules()
    )


@torch.no_grad()
def _measure(backbone: Backbone, index: int, module: nn.Module) -> Experts:
    states = torch.randn(1, _TOKENS, backbone.width, generator=torch.Generator().manual_seed(0))
    states = states.to(backbone.place(backbone.layers[index]), getattr(torch, backbone.precision))
    counts: list[int] = []
    with _one_by_one(module):
        for tokens in (1, _TOKENS):
            with FlopCounterMode(display=False) as counter:
                given = module(states[:, :tokens])
            counts.append(counter.get_total_flops())
    executed, together = counts
    if together != _TOKENS * executed:
        raise DlbenchError(
            f"model {backbone.name!r}: in the feed-forward of layer {index} one token costs {executed} FLOPs and "
            f"{_TOKENS} tokens cost {together}; only experts of which each token uses equally many can be counted"
        )
    return _described(module, executed, getattr(backbone.model.config, "num_experts_per_tok", None), given)


def _described(module: nn.Module, executed: int, chosen: int | None, given: Any) -> Experts:
    """Tell what of the FLOPs that a module executes for one token is masked.

    Args:
        module: the feed-forward.
        executed: its FLOPs per token.
        chosen: experts per token that the configuration names.
        given: what the module returned.
    """
    matrices = [p for p in module.parameters() if p.ndim > 1]
    stacked = [p for p in matrices if p.ndim == 3]  # [experts, …]
    if not stacked:
        return Experts(executed, executed, 1, isinstance(given, tuple))
    number = len(stacked[0])
    one = 2 * sum(p.numel() for p in stacked) // number
    linear = linear_flops(module)
    all_run = executed == 2 * sum(p.numel() for p in matrices)
    computed = number if all_run else max(1, (executed - linear) // one)
    masked = one * (number - min(number, chosen)) if all_run and chosen else 0
    width = computed * max(max(p.shape[1:]) for p in stacked)
    return Experts(executed - masked, executed, width, isinstance(given, tuple))


@contextmanager
def _one_by_one(module: nn.Module) -> Iterator[None]:
    """Let experts run one after the other, in products that torch's counter knows."""
    configs: list[Any] = [part.config for part in module.modules() if hasattr(part, "config")]
    before = [getattr(config, "_experts_implementation", None) for config in configs]
    try:
        for config in configs:
            config._experts_implementation = "eager"
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._experts_implementation = implementation
