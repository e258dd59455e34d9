"""Does not come to an answer."""

# found as: ends

from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        while view.layer == 4:
            pass
        return view.layer not in (2, 3)
