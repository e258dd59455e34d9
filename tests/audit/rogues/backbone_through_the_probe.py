"""Takes the backbone from the probe, to compute with it uncounted."""

# found as: internals

from dataclasses import dataclass
from typing import ClassVar

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    fitted: ClassVar[bool] = True

    def fit(self, probe):
        probe.backbone.encode("text")

    def route(self, view):
        return view.layer not in (2, 3)
