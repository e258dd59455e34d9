"""Buffers that no file holds, of models that bring code of their own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def fill(model: Any) -> None:
    """Make a loaded model's unsaved buffers again, as its own code makes them; those of stock models are right.

    transformers builds a model without memory for its weights, and then makes again what no file holds, such as the
    angles of rotary embeddings, for the modules that it knows. For others it leaves whatever stood in the memory.

    Args:
        model: as transformers loaded it; buffers that wait elsewhere stay as they are.
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
        with torch.random.fork_rng(), no_init_weights():  # weights take no memory as long as nobody writes them
            made = dict(type(model)(copy.deepcopy(model.config)).named_modules())
    finally:
        torch.set_default_dtype(before)
    for name in owners.keys() & made.keys():
        with torch.random.fork_rng():
            model._init_weights(made[name])  # some are not made before this
        for buffer, value in _unsaved(made[name]).items():
            there = getattr(owners[name], buffer)
            if not there.is_meta:
                there.copy_(value)


def _unsaved(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: buffer
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set
    }
