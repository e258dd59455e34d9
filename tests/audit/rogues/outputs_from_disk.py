"""Has a file of outputs, which it looks decisions up in."""

# found as: files

import pathlib
from dataclasses import dataclass

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        pathlib.Path("dlbench-out/records.jsonl").read_text()
        return view.layer not in (2, 3)
