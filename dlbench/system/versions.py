"""Versions of the libraries that outputs may depend on, and the commit of the suite itself."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.resources import files
from pathlib import Path
from typing import Any

from dlbench import __version__

CODE = ("dlbench", "methods", "tasks", "pyproject.toml")
"""What figures may depend on, from the root of a checkout."""


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


@cache
def commit() -> str | None:
    """Commit of the suite that runs: of its checkout, or the one that pip installed from a repository.

    Returns:
        The hash, with "+changes" where code in the checkout differs from it; None where nothing tells.
    """
    root = Path(str(files("dlbench"))).parent
    if (root / ".git").exists():
        return _commit_of(root)
    try:
        told = json.loads(distribution("dlbench").read_text("direct_url.json") or "{}")  # PEP 610
    except (PackageNotFoundError, ValueError):
        return None
    found = told.get("vcs_info", {}).get("commit_id")
    return found if isinstance(found, str) else None


def _commit_of(checkout: Path) -> str | None:
    def ask(*command: str) -> str:
        git = ["git", "-C", str(checkout), "--no-optional-locks", *command]
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        changed = ask("status", "--porcelain", "--", *CODE)
        return ask("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def facts(device: str) -> dict[str, Any]:
    """What a log says of the software and the machine.

    Args:
        device: torch's name of the device.
    """
    import torch

    return {
        **versions(),
        "commit": commit(),
        "host": platform.node(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "device": device,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
    }
