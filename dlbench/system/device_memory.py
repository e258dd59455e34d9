"""What fits into memory: rows of a wave, how much is free, and whether an error says that there was too little."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

if TYPE_CHECKING:
    from dlbench.models.backbone import Backbone

SHARE = 0.5
"""Share of the free memory that a wave is planned to take. The rest is for what the plan leaves out."""
_SAYINGS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "alloc_failed")
_CGROUP = Path("/sys/fs/cgroup")


WAITING = 3
"""Rows of a wave that wait with their prompts read, for each that is under way, where memory sets no limit."""


def most_slots(device: str) -> int:
    """Rows decoded together where memory sets no limit: 48 on a CPU, 256 elsewhere."""
    return 48 if device == "cpu" else 256


def most_rows(slots: int, documents: int, processes: int) -> int:
    """Rows of a wave where memory sets no limit, with work for every process."""
    return min((1 + WAITING) * slots, -(-documents // processes))


def row_bytes(backbone: Backbone, prompt: int, new: int, layers: int) -> int:
    """Bytes that one row needs: its keys and values, and the widest states of its prefill.

    Args:
        backbone: what decodes.
        prompt: prompt tokens, padding included.
        new: most new tokens.
        layers: layers that keep keys and values.
    """
    config = backbone.model.config
    size = next(backbone.model.parameters()).element_size()
    widest = max(max(p.shape) for p in backbone.layers[0].parameters())
    forward = 4 * widest * prompt * size  # of one layer: the feed-forward's gate, its other half, product, and slack
    if config._attn_implementation == "eager":
        forward += 3 * config.num_attention_heads * prompt**2 * 4  # scores, softmax in float32, and slack
    return int(layers * backbone.cache_bytes * (prompt + new) + forward)


def rows_that_fit(
    backbone: Backbone, prompt: int, new: int, layers: int, slots: int, free_bytes: int, *, copied: bool = False
) -> int:
    """Rows of a wave that stay within SHARE of the free memory; at least one, which will tell if it does not fit.

    Args:
        backbone: what decodes.
        prompt: prompt tokens, padding included.
        new: most new tokens.
        layers: layers that keep keys and values.
        slots: rows decoded together; where more fit, these wait with their prompts read.
        free_bytes: memory that is free.
        copied: whether a run takes copies of the prompts, however few there are.
    """
    budget, waiting = int(SHARE * free_bytes), max(1, layers * backbone.cache_bytes * prompt)
    copy = row_bytes(backbone, prompt, 2 * new, layers)  # into room for twice the new tokens
    together = max(1, budget // max(1, copy + waiting if copied else row_bytes(backbone, prompt, new, layers)))
    if together <= slots:
        return together
    # a run of a larger wave takes copies in any case
    return max(slots, (budget - slots * copy) // waiting)


def free_bytes(device: torch.device, processes: int) -> int:
    """Memory that this process may still take on a device; what the processes of a machine share is divided."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return min(int(psutil.virtual_memory().available), _container_bytes()) // processes


def _container_bytes() -> int:
    """What a container's limit (cgroup v2) leaves; pages of files count as free, they go when memory is short."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        facts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(facts.get("inactive_file", 0)))
    except (OSError, ValueError):  # none, or "max"
        return 1 << 62


def ran_out(error: BaseException) -> bool:
    """Whether an error, or one that it was raised from, says that memory was full."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, RuntimeError) and any(saying in str(error).lower() for saying in _SAYINGS):
        return True
    return error.__cause__ is not None and ran_out(error.__cause__)


def release() -> None:
    """Give back what nothing refers to any more; not inside `except`, where the error still holds its frames."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()
