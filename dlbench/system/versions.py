"""Versions of the libraries that outputs may depend on."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dlbench import __version__


@cache
def versions(*more: str) -> dict[str, str]:
    """Versions that outputs may depend on.

    Args:
        *more: names of further packages.

    Returns:
        Name → version; "absent" where a package is not installed.
    """
    installed = {"dlbench": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "lm_eval", "tokenizers", *more):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "absent"
    return installed


def facts(device: str) -> dict[str, Any]:
    """What a log says of the software and the machine.

    Args:
        device: torch's name of the device.
    """
    import torch

    return {
        **versions(),
        "host": platform.node(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
    }
