"""What timed work takes beside time: energy, memory at its highest, and how busy other programs kept the machine.

Energy is that of the processor's packages, by the counters of RAPL where the system lets a program read them: the whole
machine's, whoever uses it. Energy of a GPU is not read.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

_RAPL = Path("/sys/class/powercap")
_PROCESS = Path("/proc/self")
BUSY = 0.1
"""Share of the processors that other programs use, from which on times are warned about."""


@dataclass
class Used:
    """What several runs of one setting took.

    Attributes:
        joules: of all runs; None where it cannot be read.
        peak_bytes: memory of the device that this process held at most, the model included; None where that cannot be
            read for a part of a process.
    """

    joules: float | None = None
    peak_bytes: int | None = None


@dataclass
class ResourceMeter:
    """Reads the machine's counters around work on a device."""

    device: torch.device
    _packages: list[tuple[Path, int]] = field(init=False)
    """Files of the energy counters in microjoules, with the value that each begins anew at."""

    def __post_init__(self) -> None:
        self._packages = _readable_packages() if self.device.type == "cpu" else []

    @contextmanager
    def adding_to(self, used: Used) -> Iterator[None]:
        """Add what the work inside takes."""
        _reset_peak(self.device)
        before = [int(path.read_text()) for path, _ in self._packages]
        yield
        after = [int(path.read_text()) for path, _ in self._packages]
        if self._packages:
            spent = sum((b - a) % most for a, b, (_, most) in zip(before, after, self._packages, strict=True))
            used.joules = (used.joules or 0.0) + spent / 1e6
        if (peak := _peak(self.device)) is not None:
            used.peak_bytes = max(used.peak_bytes or 0, peak)


def _readable_packages() -> list[tuple[Path, int]]:
    packages = []
    try:
        for zone in sorted(_RAPL.glob("intel-rapl:*")):  # AMD's processors have the same name there
            if (zone / "name").read_text().startswith("package"):
                int((zone / "energy_uj").read_text())
                packages.append((zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()) + 1))
    except (OSError, ValueError):  # most systems keep them from all users but root
        return []
    return packages


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
