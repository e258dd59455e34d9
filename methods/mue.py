"""MuE: multiple early exits (Tang et al., arXiv 2211.11152): leave when the state has stopped moving.

A token leaves after layer i when cos(h_i-1, h_i) reaches the threshold of its step; the first layer is compared with
the embedding. No classifier and no look at the logits, so a check costs nothing that the meter counts. The threshold
decays over the text, clip(0.9·λ + 0.1·exp(-tau·t/N)), for the token t that is written, from 0, of at most N.

Faithful: the rule and its decay, checked after every layer. Different: the paper's encoder part is left out, there is
none here, and the backbone is not trained with a task loss on every layer (`dlbench train sorted` does that for
prefixes).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from dlbench.method import Exit, View


@dataclass
class Mue(Exit):
    """Leave when a layer has hardly changed the state."""

    threshold: float = 0.95
    tau: float = 4.0

    def thresholds(self, view: View) -> Tensor:
        decayed = torch.exp(-self.tau * (view.step + 1).double() / view.limit)  # step 0 writes the second token
        return (0.9 * self.threshold + 0.1 * decayed).clamp(0, 1)

    def confidence(self, view: View) -> Tensor:
        before = view.before
        assert before is not None  # nothing is skipped, so the layer below has run
        return torch.cosine_similarity(before.float(), view.hidden.float(), dim=-1)
