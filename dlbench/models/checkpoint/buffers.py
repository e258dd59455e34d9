"""Non-persistent buffers of models that come with their own code."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def fill(model: Any) -> None:
    """Recompute a loaded model's non-persistent buffers with its own code; those of transformers' models are right.

    transformers builds a model without memory for its weights and then initialises what no file has, such as rotary
    angles, for the modules that it knows. Buffers of other modules keep whatever was in the memory.

    Args:
        model: as transformers loaded it; offloaded buffers are left alone.
    """
    if not type(model).__module__.startswith("transformers_modules."):
        return
    owners = {name: module for name, module in model.named_modules() if _unsaved(module)}
    if not owners:
        return
    from transformers.initialization import no_init_weights

    before = torch.get_default_dtype()
    torch.set_default_dtype(next(p.dtype for p in model.parameters() if p.is_floating_point()))
    try:
        with torch.random.fork_rng(), no_init_weights():  # memory of the weights is never written, so never taken
            made = dict(type(model)(copy.deepcopy(model.config)).named_modules())
    finally:
        torch.set_default_dtype(before)
    for name in owners.keys() & made.keys():
        with torch.random.fork_rng():
            model._init_weights(made[name])  # some buffers are only set here
        for buffer, value in _unsaved(made[name]).items():
            loaded = getattr(owners[name], buffer)
            if not loaded.is_meta:
                loaded.copy_(value)


def _unsaved(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: buffer
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set
    }
