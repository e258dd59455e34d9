"""Lets a thread compute."""

# found as: threads

import threading
from dataclasses import dataclass

import numpy as np

from dlbench.method import Method

WEIGHT = np.ones((700, 700))


def work():
    """A few products, as large as the layers that are skipped."""
    state = WEIGHT[:64]
    for _ in range(2):
        state = state @ WEIGHT
    return state


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return view.layer not in (2, 3)
