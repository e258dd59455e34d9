"""`--offline`: keep all libraries from contacting the Hugging Face hub."""

from __future__ import annotations

import os
import sys

_SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


def enforce() -> None:
    """Switch the hub off in this process and in those that it starts.

    The libraries read the environment when they are imported; in those that are imported already, the setting is
    changed.
    """
    os.environ.update(dict.fromkeys(_SWITCHES, "1"))
    for module in ("huggingface_hub.constants", "datasets.config"):
        if module in sys.modules:
            sys.modules[module].HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
