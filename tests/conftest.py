"""What holds for all tests: one torch thread, no hub, and the slowest files first.

The models are tiny, and several threads on a busy machine wait for each other at every operation. Subprocesses inherit
the settings.
"""

import json
import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parents[1]
SECONDS = json.loads((ROOT / "ci" / "test_seconds.json").read_text(encoding="utf-8"))
UNKNOWN = 20.0
"""Assumed seconds of a test file that was never measured."""


def pytest_configure(config):
    # With `--dist loadfile` pytest-xdist starts the files with the most tests first, which are not the slowest.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    """Put the slowest files first, so that no process is left alone with one of them at the end."""
    items.sort(key=lambda item: -SECONDS.get(item.path.relative_to(ROOT).as_posix(), UNKNOWN))
