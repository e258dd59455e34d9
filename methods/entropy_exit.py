"""Exit by entropy, as in binary early-exit networks (arXiv 2206.09029).

A token leaves before a checked layer when the entropy of the exit head's softmax, as a share of its maximum
log(vocabulary), is at most 1 - threshold. The paper does so on binarised networks; `--dtype int8` runs it on a
quantised backbone.

Faithful: the rule. Different: the exits are the model's own final norm and head, not trained branches, and there is one
before every layer, where the paper places a few; `check` names those wanted.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dlbench.method import Exit, View


@dataclass
class EntropyExit(Exit):
    """Leave when the exit head's distribution is sharp."""

    threshold: float = 0.95

    def confidence(self, view: View) -> Tensor:
        p = view.logits().float().softmax(-1)  # [n, vocabulary]
        entropy: Tensor = torch.special.entr(p).sum(-1)
        return 1 - entropy / math.log(p.shape[-1])
