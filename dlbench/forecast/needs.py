"""Foretell the memory and the room on a disk that work needs, and refuse what cannot fit."""

from __future__ import annotations

import shutil
from pathlib import Path

import psutil
import torch

from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone
from dlbench.models.batch_size import row_bytes, rows_that_fit
from dlbench.models.catalog import AUTO, INT8
from dlbench.models.checkpoint.files import first_dtype, weight_files
from dlbench.models.loading import TORCH_DTYPES
from dlbench.system.device_memory import free_bytes


def weights_bytes(folder: Path, dtype: str) -> int:
    """Memory of a model's weights, by the sizes of its files; 0 where they are not in safetensors.

    Args:
        folder: of the model.
        dtype: that it is loaded in.
    """
    files = [path for path in weight_files(folder) if path.suffix == ".safetensors" and path.is_file()]
    stored = TORCH_DTYPES.get(first_dtype(files))
    size = sum(path.stat().st_size for path in files)
    if stored is None or dtype in (AUTO, INT8):  # quantised, or loaded as it is stored
        return size
    return size * TORCH_DTYPES[dtype].itemsize // stored.itemsize


def held_bytes(device: torch.device) -> int:
    """Memory of a device that this process holds; of a CPU, all memory of the process."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else int(psutil.Process().memory_info().rss)


def highest_bytes(device: torch.device) -> int:
    """The most memory of a device that this process has held so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # POSIX only

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def wave_bytes(backbone: Backbone, prompt: int, new: int, rows: int, slots: int) -> int:
    """Memory of a wave's keys, values, states and intermediate results.

    Args:
        backbone: the model.
        prompt: tokens of the longest prompt.
        new: most new tokens.
        rows: of the wave.
        slots: most rows decoded together.
    """
    depth = backbone.depth
    waiting = depth * backbone.cache_bytes * prompt + backbone.state_bytes
    return min(rows, slots) * row_bytes(backbone, prompt, new, depth) + max(0, rows - slots) * waiting


def chosen_rows(backbone: Backbone, prompt: int, new: int, rows: int, slots: int, processes: int) -> int:
    """Rows of a wave that the run would decode at once where it chooses by the free memory; see `wave_bytes`."""
    free = free_bytes(backbone.device, processes)
    return min(rows, rows_that_fit(backbone, prompt, new, backbone.depth, slots, free))


def check_memory(need: int, free: int, what: str) -> None:
    """Refuse what does not fit the memory.

    Raises:
        DlbenchError: it does not.
    """
    if need > free:
        raise DlbenchError(
            f"{what} needs {size(need)} of memory, and {size(free)} are free: take fewer processes, a smaller batch, "
            "dtype or model, or another device"
        )


def check_disk(need: int, out: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be.

    Raises:
        DlbenchError: the need does not fit there.
    """
    place = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if need > free:
        raise DlbenchError(f"--out {out} needs {size(need)}, and {size(free)} are free there: give a folder elsewhere")
    return free


def size(count: float) -> str:
    """Bytes for people."""
    unit = "bytes"
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.3g} {unit}"
