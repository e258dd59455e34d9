"""Computes its own exit head with numpy."""

# found as: uncounted

from dataclasses import dataclass

import numpy as np
import torch

from dlbench.method import Method

WEIGHT = np.ones((700, 700))


def work():
    """A few products, as large as the layers that are skipped."""
    state = WEIGHT[:64]
    for _ in range(4):
        state = state @ WEIGHT
    return state


class Head(torch.nn.Module):
    """Gives zeros, after much work."""

    def forward(self, states):
        """[n, width] -> [n, vocabulary]."""
        work()
        return states.new_zeros(len(states), 61)


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def head(self, layer):
        return Head()

    def route(self, view):
        view.logits()
        return view.layer not in (2, 3)
