"""FFN-SkipLLM (Jaiswal et al., arXiv 2404.03865): skip feed-forwards once the state has saturated.

Attention runs in every layer; where the cosine of the state and the input of the last executed layer has reached the
threshold, the feed-forward is left out. The first and the last layers ("cold" regions) and the first decoded tokens run
whole.

Faithful: feed-forwards only, cosine saturation, cold layers and warm-up tokens protected. Different: the cosine spans
the last executed layer, which is what a token can see for nothing, where the paper takes the feed-forward's; it is
looked at anew before every layer instead of holding once it was reached; how many layers and tokens are protected is
not found by calibration: one of each, unless `cold_first`, `cold_last` and `warm_up` say otherwise. As attention always
runs, small budgets are unreachable.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dlbench.method import Action, Knob, Method, View


@dataclass
class FfnSkip(Method):
    """Leave out feed-forwards of states that no longer move."""

    knob: ClassVar[Knob | None] = Knob("threshold", 0.0, 1.0)

    threshold: float = 0.95
    cold_first: int = 1
    """Lowest layers that run whole."""
    cold_last: int = 1
    """Highest layers that run whole."""
    warm_up: int = 1
    """Decoded tokens that run whole."""

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [-1, 1], not {self.threshold}")
        if self.cold_first < 1 or self.cold_last < 0 or self.warm_up < 0:
            raise ValueError("cold_first must be at least 1, cold_last and warm_up at least 0")

    def validate(self, depth: int) -> None:
        if (cold := self.cold_first + self.cold_last) >= depth:
            raise ValueError(f"cold_first + cold_last = {cold} leaves no layer of {depth} to thin")

    def route(self, view: View) -> Action | Tensor:
        if not self.cold_first <= view.layer < view.depth - self.cold_last:
            return Action.RUN
        before = view.before
        assert before is not None  # attention always runs, so every layer below was executed in part
        cosine = torch.cosine_similarity(before.float(), view.hidden.float(), dim=-1)
        still = view.at_least(cosine, self.threshold) & (view.step >= self.warm_up).to(cosine.device)
        return torch.where(still, int(Action.ATTN), int(Action.RUN))
