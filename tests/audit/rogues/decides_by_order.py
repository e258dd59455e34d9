"""Decides by the place of a text in its batch."""

# found as: neighbours

from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        return (view.row % 2 == 0) | (view.layer not in (2, 3))
