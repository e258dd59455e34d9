"""Reads the variables of its callers."""

# found as: memory

import inspect
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        frame = inspect.currentframe()
        while frame is not None:
            frame = frame.f_back
        return view.layer not in (2, 3)
