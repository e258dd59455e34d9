"""Decodes with other weights, and puts them back before anybody looks."""

# found as: texts

from dataclasses import dataclass

import torch

from dlbench.method import Method

KEPT = []


@dataclass
class Rogue(Method):
    """Skip the layers in the middle."""

    def route(self, view):
        weight = view.backbone.layers[4].mlp.down_proj.weight
        with torch.no_grad():
            if view.layer == 4:
                KEPT.append(weight.clone())
                weight.mul_(-2)
            elif KEPT:
                weight.copy_(KEPT.pop())
        return view.layer not in (2, 3)
