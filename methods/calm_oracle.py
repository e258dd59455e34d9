"""CALM's token-consistency oracle (Schuster et al., arXiv 2207.07061, section 3.5).

A token leaves at the first layer whose exit head writes what the last layer would write: the least depth per token that
changes nothing at once. It knows the future, so it is a ceiling for exits and never deployable; what it looks at is not
charged. With `--kv recompute` every layer sees the true keys and values ("the same with true KV"): then the text is
that of full depth.

Different: rows of a batch leave one by one, where the authors' code decodes a batch of one.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlbench.method import Action, Method, View


@dataclass
class CalmOracle(Method):
    """Leave at the first layer that agrees with the last one."""

    deployable: ClassVar[bool] = False
    uses_future: ClassVar[bool] = True
    kv: ClassVar[tuple[str, ...]] = ("project", "evict", "recompute")

    min_layers: int = 1
    """Layers that always run."""

    def __post_init__(self) -> None:
        if self.min_layers < 1:
            raise ValueError(f"min_layers must be at least 1, not {self.min_layers}")

    def route(self, view: View) -> Action | Tensor:
        if view.layer < self.min_layers:
            return Action.RUN
        agrees = view.foreseen(view.layer) == view.foreseen(view.depth)
        return torch.where(agrees, int(Action.EXIT), int(Action.RUN))
