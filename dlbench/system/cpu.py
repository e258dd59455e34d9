"""The machine's processor: its name and vendor."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from functools import cache
from pathlib import Path

_FACTS = Path("/proc/cpuinfo")


def name() -> str:
    """The processor's name, as the system reports it."""
    return _fact("model name") or platform.processor() or platform.machine()


def vendor() -> str:
    """The vendor id, such as GenuineIntel or AuthenticAMD; empty where the system does not report one."""
    # On Windows it follows a description; elsewhere `platform.processor` starts a process.
    return _fact("vendor_id") or platform.processor().partition(", ")[2]


@cache
def _fact(key: str) -> str:
    """The first value of a key in /proc/cpuinfo; empty where there is none."""
    lines: list[str] = []
    with suppress(OSError):
        lines = _FACTS.read_text(errors="replace").splitlines()
    return next(
        (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key), ""
    )


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
