"""What the machine's processor is."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

_FACTS = Path("/proc/cpuinfo")


def name() -> str:
    """Its name, as the system tells it."""
    return _fact("model name") or platform.processor() or platform.machine()


def vendor() -> str:
    """Its maker's own mark, such as GenuineIntel or AuthenticAMD; empty where the system does not tell."""
    # Windows tells it behind a description; elsewhere asking costs a process
    return _fact("vendor_id") or platform.processor().partition(", ")[2]


@cache
def _fact(key: str) -> str:
    """What Linux says first under a key; empty where it does not."""
    lines = _FACTS.read_text().splitlines() if _FACTS.is_file() else []
    return next(
        (value.strip() for name, _, value in (line.partition(":") for line in lines) if name.strip() == key), ""
    )
