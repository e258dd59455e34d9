"""Deletes the samples of other rows."""

# found as: writes

import pathlib
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        for path in pathlib.Path("dlbench-out/samples").glob("*"):
            path.unlink()
        return view.layer not in (2, 3)
