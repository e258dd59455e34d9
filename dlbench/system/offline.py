"""`--offline`: ask no hub, whatever libraries would like to look up."""

from __future__ import annotations

import os
import sys

_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


def enforce() -> None:
    """Switch the hub off in this process and in those that it starts.

    The libraries read the environment when they are imported, so what is imported already is told too.
    """
    os.environ.update(dict.fromkeys(_SWITCHES, "1"))
    for module in ("huggingface_hub.constants", "datasets.config"):
        if module in sys.modules:
            sys.modules[module].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
