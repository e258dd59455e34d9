"""Memory of a device: how much is free, whether an error means that it ran out, and giving it back."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import torch

_SAYINGS = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "alloc_failed")
_CGROUP = Path("/sys/fs/cgroup")


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
