"""Versions of the libraries that outputs may depend on."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

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
