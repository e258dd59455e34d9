"""Lines for people on stderr, beside what a command prints."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Print one line for people on stderr."""
    print("dlbench:", " ".join(message.split()), file=sys.stderr)
