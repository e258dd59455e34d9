"""The machine that a run is on: what of it times depend on, as far as it can be read without privileges."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import psutil

from dlbench.system import cpu

_FIELDS = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm", "clocks.max.memory")
"""What nvidia-smi is asked for: mebibytes, watts and megahertz."""
_MOST_TEXT = 200


@cache
def hardware(device: str = "cpu") -> dict[str, Any]:
    """Describe what a device computes with, by the names of `dlbench.records.record.Hardware`.

    Args:
        device: torch's name of it, such as "cpu" or "cuda:1".

    Returns:
        Name → value; None for what cannot be read.
    """
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        "memory_bytes": int(psutil.virtual_memory().total),
        "clock_mhz": _clock(),
        "system": f"{platform.system()} {platform.release()}"[:_MOST_TEXT],
    }
    kind, _, index = device.partition(":")
    return facts | (_nvidia(int(index or 0)) if kind == "cuda" else {})


def _processor() -> str:
    """The name of the processor, and its architecture where it has no name."""
    return "".join(filter(str.isprintable, cpu.name() or "unknown"))[:_MOST_TEXT]


def _clock() -> float | None:
    """The highest clock of the processor in megahertz; None where the system does not say."""
    try:
        clock = psutil.cpu_freq()
    except (OSError, NotImplementedError, RuntimeError):
        return None
    return None if clock is None or not clock.max > 0 else float(clock.max)


def _nvidia(index: int) -> dict[str, Any]:
    """What nvidia-smi says of a GPU; its name as torch gives it where there is no nvidia-smi."""
    facts = dict.fromkeys(
        ("gpu", "gpu_driver", "gpu_memory_bytes", "gpu_power_limit_watts", "gpu_clock_mhz", "gpu_memory_clock_mhz")
    )
    values = _ask(_visible(index))
    if len(values) != len(_FIELDS):
        import torch

        return {**facts, "gpu": torch.cuda.get_device_name(index)[:_MOST_TEXT]}
    name, driver, memory, *numbers = values
    mebibytes = _number(memory)
    return dict(zip(facts, (name, driver, None if mebibytes is None else int(mebibytes * 2**20)), strict=False)) | dict(
        zip(list(facts)[3:], map(_number, numbers), strict=True)
    )


def _visible(index: int) -> str:
    """The name that nvidia-smi has for the GPU that torch counts as number `index`."""
    visible = [one.strip() for one in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return visible[index] if index < len(visible) else str(index)


def _ask(gpu: str) -> list[str]:
    """One line of nvidia-smi, split at its commas; empty where it does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, f"--id={gpu}", f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    lines = done.stdout.strip().splitlines()
    return [value.strip()[:_MOST_TEXT] for value in lines[0].split(",")] if lines else []


def _number(text: str) -> float | None:
    """A number; None for `[N/A]` and the like."""
    try:
        return float(text)
    except ValueError:
        return None


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads of the processor while entered; None, or 0, leaves them as they are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
