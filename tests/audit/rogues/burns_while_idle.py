"""Keeps the processor busy while others are timed."""

# found as: idle

import threading
from dataclasses import dataclass

from dlbench.method import Method


def burn():
    """Never end."""
    while True:
        pass


threading.Thread(target=burn, daemon=True).start()


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        return view.layer not in (2, 3)
