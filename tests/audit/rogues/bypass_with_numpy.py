"""Runs what it skips in the module of `bypass`, with numpy."""

# found as: uncounted

from dataclasses import dataclass

import numpy as np
import torch

from dlbench.method import Method

WEIGHT = np.ones((700, 700))


def work():
    """A few products, as large as the layers that are skipped."""
    state = WEIGHT[:64]
    for _ in range(12):
        state = state @ WEIGHT
    return state


class Adapter(torch.nn.Module):
    """Adds nothing, after much work."""

    def forward(self, states):
        """[n, width] -> the same."""
        work()
        return states * 0


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def bypass(self, layer):
        return Adapter()

    def route(self, view):
        return view.layer not in (2, 3)
