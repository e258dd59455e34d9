"""Trains the backbone, which is full depth's too."""

# found as: weights

from dataclasses import dataclass
from typing import ClassVar

import torch

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    fitted: ClassVar[bool] = True

    def fit(self, probe):
        with torch.no_grad():
            probe.backbone.model.lm_head.weight.mul_(1.01)

    def route(self, view):
        return view.layer not in (2, 3)
