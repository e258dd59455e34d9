"""Multiplies matrices without a product: by broadcasting, and a sum."""

# found as: uncounted

from dataclasses import dataclass

import torch

from dlbench.method import Method

WEIGHT = torch.ones(256, 256, dtype=torch.float64) / 256


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        state = view.hidden
        for _ in range(40):
            state = (state[:, :, None] * WEIGHT).sum(1)
        return view.layer not in (2, 3)
