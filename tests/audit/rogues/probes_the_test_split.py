"""Asks the probe's task for the documents that are scored."""

# found as: test-split

from dataclasses import dataclass
from typing import ClassVar

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    fitted: ClassVar[bool] = True

    def fit(self, probe):
        probe.task.documents("test")

    def route(self, view):
        return view.layer not in (2, 3)
