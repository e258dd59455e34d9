"""SkipDecode (Del Corro et al., arXiv 2307.02628): one depth per position, falling as the text grows.

The first `warm` layers always run, then a block is skipped, and the rest of the layers up to the last run: the later
the token, the larger the block. The number of layers falls linearly from `most` at the first decoded token to `least`
at the last that the limit allows, so that all rows of a batch at one position run the same layers, and no key or value
that a later token needs is missing: later tokens run a subset of the layers of earlier ones.

Faithful: depth by position alone, monotone, lower-to-middle layers skipped after warm-up layers, decoding only.
Different: the paper sets the two ends by a target speed-up and finds them by hand; here the budget sets the mean, with
`least` as far below it as `most` is above.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlbench.method import Knob, Method, View


@dataclass
class SkipDecode(Method):
    """Run fewer layers the later the token."""

    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)

    share: float = 0.5
    """Mean share of the layers over all positions up to the limit."""
    spread: float = 0.25
    """How far above and below the mean the first and the last position lie, as a share of the depth."""
    warm: int = 1
    """Lowest layers that always run."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], not {self.share}")
        if not 0 <= self.spread < 1:
            raise ValueError(f"spread must lie in [0, 1), not {self.spread}")
        if self.warm < 1:
            raise ValueError(f"warm must be at least 1, not {self.warm}")

    def validate(self, depth: int) -> None:
        if self.warm >= depth:
            raise ValueError(f"warm={self.warm} leaves no layer of {depth} to skip")

    def counts(self, step: Tensor, limit: Tensor, depth: int) -> Tensor:
        """Layers that run at each step: [n], int64."""
        spread = min(self.spread, self.share, 1 - self.share)
        done = step / (limit - 2).clamp(min=1)  # the last decode step is limit - 2
        layers = torch.floor((self.share + spread * (1 - 2 * done.clamp(max=1))) * depth + 0.5)
        return layers.clamp(min=self.warm + 1, max=depth).long()

    def route(self, view: View) -> Tensor:
        runs = self.counts(view.step, view.limit, view.depth)
        return (view.layer < self.warm) | (view.layer >= view.depth - (runs - self.warm))
