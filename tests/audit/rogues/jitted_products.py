"""Computes in a function that was compiled by torch."""

# found as: uncounted

from dataclasses import dataclass

import torch

from dlbench.method import Method

WEIGHT = torch.ones(700, 700, dtype=torch.float64) / 700


@torch.jit.script
def work(weight: torch.Tensor):
    """A few products, as large as the layers that are skipped."""
    state = weight[:64]
    for _ in range(4):
        state = state.matmul(weight)
    return state


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        work(WEIGHT)
        return view.layer not in (2, 3)
