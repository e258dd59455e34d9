"""Ends the process without a word."""

# found as: ends

import os
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        if view.layer == 4:
            os._exit(0)
        return view.layer not in (2, 3)
