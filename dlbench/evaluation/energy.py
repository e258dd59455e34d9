"""Counters of energy, where the system lets a program read them: RAPL of a processor's packages, NVML of a GPU.

They count for everybody who uses the processor or the GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

_RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class EnergyCounter:
    """A counter that goes up.

    Attributes:
        read: returns its value.
        joules: that one step of it stands for.
        most: its highest value, after which it begins anew; None where it does not.
    """

    read: Callable[[], int]
    joules: float
    most: int | None = None

    def spent(self, before: int, after: int) -> float:
        """Joules between two values."""
        steps = after - before
        return self.joules * (steps if self.most is None else steps % (self.most + 1))


def package_counters() -> Sequence[EnergyCounter]:
    """Return the counters of the processor's packages; none where one of them cannot be read."""
    counters = []
    try:
        for zone in sorted(_RAPL.glob("intel-rapl:*")):  # AMD's processors have the same name there
            if (zone / "name").read_text().startswith("package"):
                counter = EnergyCounter(
                    partial(_number, zone / "energy_uj"), 1e-6, _number(zone / "max_energy_range_uj")
                )
                counter.read()
                counters.append(counter)
    except (OSError, ValueError):  # most systems keep them from all users but root
        return []
    return counters


def _number(path: Path) -> int:
    return int(path.read_text())


def gpu_counter(device: torch.device) -> EnergyCounter | None:
    """Return the counter of a CUDA GPU; None without NVML's Python package, or where it does not count.

    It goes up every 20 to 100 ms only (https://docs.nvidia.com/deploy/nvml-api, Volta and later).
    """
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        # CUDA_VISIBLE_DEVICES numbers the GPUs anew; their UUIDs stay
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        counter = EnergyCounter(partial(nvml.nvmlDeviceGetTotalEnergyConsumption, handle), 1e-3)
        counter.read()
    except nvml.NVMLError:  # a part of a GPU (MIG), or one before Volta
        return None
    return counter
