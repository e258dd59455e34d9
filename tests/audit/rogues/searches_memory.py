"""Looks through everything that Python keeps."""

# found as: memory

import gc
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        if view.layer == 0 and bool((view.step == 0).all()):
            assert gc.get_objects()
        return view.layer not in (2, 3)
