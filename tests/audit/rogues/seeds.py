"""Seeds the generators that others draw from."""

# found as: global-state

import random
from dataclasses import dataclass

import numpy as np
import torch

from dlbench.method import Method


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        return view.layer not in (2, 3)
