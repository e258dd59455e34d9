"""Computes a second model with numpy."""

# found as: uncounted

from dataclasses import dataclass

import numpy as np

from dlbench.method import Method

WEIGHT = np.ones((700, 700))


def work():
    """A few products, as large as the layers that are skipped."""
    state = WEIGHT[:64]
    for _ in range(4):
        state = state @ WEIGHT
    return state


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        work()
        return view.layer not in (2, 3)
