"""Tells the counter to pause."""

# found as: internals

from dataclasses import dataclass

import torch

from dlbench.method import Method

WEIGHT = torch.ones(256, 256, dtype=torch.float64)


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        if view.work is not None:
            view.work.paused = True
        view.hidden @ WEIGHT
        if view.work is not None:
            view.work.paused = False
        return view.layer not in (2, 3)
