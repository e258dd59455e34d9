"""Skips more where the command line is not that of a run."""

# found as: timed

import sys
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        return view.layer not in ((2, 3) if "run" in sys.argv else (1, 2, 3, 4))
