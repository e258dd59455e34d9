"""Leaves another number of threads."""

# found as: global-state

from dataclasses import dataclass

import torch

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        torch.set_num_threads(2)
        return view.layer not in (2, 3)
