"""Changes weights while it decodes."""

# found as: weights

from dataclasses import dataclass

import torch

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        with torch.no_grad():
            next(view.backbone.model.parameters()).mul_(1.001)
        return view.layer not in (2, 3)
