"""Decides by the mean state of the batch."""

# found as: neighbours

from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        return (view.hidden[:, 0] >= view.hidden[:, 0].mean()) | (view.layer not in (2, 3))
