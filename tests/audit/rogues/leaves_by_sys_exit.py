"""Ends the run as if it were done."""

# found as: ends

import sys
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        if view.layer == 4:
            sys.exit(0)
        return view.layer not in (2, 3)
