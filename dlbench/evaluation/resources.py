"""What timed work takes beside time: energy, memory at its highest, and how busy other programs kept the machine.

Energy is that of the device: of the processor's packages, or of the GPU.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from dlbench.evaluation.energy import EnergyCounter, gpu_counter, package_counters

_PROCESS = Path("/proc/self")
BUSY = 0.1
"""Share of the processors that other programs use, from which on times are warned about."""
GPU_SECONDS = 1.0
"""For which work on a GPU goes on while its energy is read: its counter goes up every 20 to 100 ms."""


@dataclass
class Used:
    """What several runs of one setting took.

    Attributes:
        joules: of `counted` runs; None where it cannot be read.
        counted: runs whose energy was read.
        peak_bytes: memory of the device that this process held at most, the model included; None where that cannot be
            read for a part of a process.
    """

    joules: float | None = None
    counted: int = 0
    peak_bytes: int | None = None


@dataclass
class ResourceMeter:
    """Reads the machine's counters around work on a device."""

    device: torch.device
    _packages: Sequence[EnergyCounter] = field(init=False)
    _gpu: EnergyCounter | None = field(init=False)

    def __post_init__(self) -> None:
        self._packages = package_counters() if self.device.type == "cpu" else []
        self._gpu = gpu_counter(self.device) if self.device.type == "cuda" else None

    @contextmanager
    def adding_to(self, used: Used) -> Iterator[None]:
        """Add what the work inside takes; the energy of a GPU is read by `go_on`."""
        _reset_peak(self.device)
        before = [counter.read() for counter in self._packages]
        yield
        if self._packages:
            spent = [one.spent(value, one.read()) for one, value in zip(self._packages, before, strict=True)]
            used.joules = (used.joules or 0.0) + sum(spent)
            used.counted += 1
        if (peak := _peak(self.device)) is not None:
            used.peak_bytes = max(used.peak_bytes or 0, peak)

    def go_on(self, work: Callable[[], Any], used: Used) -> None:
        """Do work on a GPU again and again, for as long as its energy counter needs to tell; nothing elsewhere.

        Args:
            work: has ended on the GPU when it returns.
            used: to which the energy is added.
        """
        if self._gpu is None:
            return
        before, end = self._gpu.read(), time.perf_counter() + GPU_SECONDS
        while time.perf_counter() < end:
            work()
            used.counted += 1
        used.joules = (used.joules or 0.0) + self._gpu.spent(before, self._gpu.read())


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        (_PROCESS / "clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    except OSError:
        return


def _peak(device: torch.device) -> int | None:
    """The most memory held since `_reset_peak`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type != "cpu" or not os.access(_PROCESS / "clear_refs", os.W_OK):
        return None
    found = re.search(r"VmHWM:\s+(\d+) kB", (_PROCESS / "status").read_text())
    return None if found is None else int(found[1]) * 1024


class Bystanders:
    """How busy other programs keep the processors from now on."""

    def __init__(self) -> None:
        self._seconds, self._work, self._own = time.perf_counter(), _working(), time.process_time()

    def share(self) -> float:
        """Return the share of all processors that other programs have used since."""
        seconds = time.perf_counter() - self._seconds
        others = _working() - self._work - (time.process_time() - self._own)
        return min(1.0, max(0.0, others / (max(seconds, 1e-9) * (psutil.cpu_count() or 1))))


def _working() -> float:
    """Seconds of all processors together that were not idle."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))
