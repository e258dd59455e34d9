"""Random layers: the control that a router must beat (Glavas et al., arXiv 2410.20022, section 4).

b layers are drawn without replacement, afresh for every decoded token. The noise is keyed by seed, document and step,
never by the batch.

Different: `per=sequence` draws once per sequence; a share between two whole numbers of layers draws one layer more with
the matching probability, so that the control can stand at any realised share.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from dlbench.method import Knob, Method, Scope, View


@dataclass
class RandomSkip(Method):
    """Run a random set of layers, new for every token or for every sequence."""

    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"per": "token"}, {"per": "sequence"})

    share: float = 0.5
    """Mean share of the layers run."""
    per: Literal["token", "sequence"] = "token"
    first: bool = False
    """Let layer 0 be the first of the layers drawn: it runs wherever one is, always if share · depth is at least 1."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], not {self.share}")
        if self.per not in ("token", "sequence"):
            raise ValueError(f"per must be token or sequence, not {self.per!r}")

    @property
    def scope(self) -> Scope:
        return self.per

    def at(self, budget: float, depth: int) -> Self:
        return type(self)(share=budget, per=self.per, first=self.first)

    def route(self, view: View) -> Tensor:
        # in numpy: of so few numbers, on the host, each of torch's calls takes several times as long
        noise = view.uniform(view.depth + 1, per=self.per).numpy()  # [n, depth + 1]
        target = self.share * view.depth
        count = np.floor(noise[:, -1] + target)  # whole layers, one more with probability frac(target)
        order = noise[:, :-1]
        if self.first:
            order = order.copy()  # what a view gives is not said to be the method's own
            order[:, 0] = -1
        rank = (order < order[:, view.layer, None]).sum(1)
        return torch.from_numpy(rank < count)
