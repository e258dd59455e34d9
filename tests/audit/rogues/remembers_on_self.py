"""Remembers on self what belongs to a text."""

# found as: state

from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        asked = vars(self)["asked"] = vars(self).get("asked", 0) + 1
        return view.layer not in ((2, 3) if asked < 100 else (3, 4))
