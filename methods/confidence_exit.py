"""Leave the stack when a confidence crosses a threshold: CALM and its relatives.

    top2        p1 - p2 of the exit head's softmax             CALM (Schuster et al., arXiv 2207.07061)
    top1        p1 of the exit head's softmax                  the same
    entropy     1 - H / log(vocabulary) of the softmax         binary early-exit networks (arXiv 2206.09029)
    saturation  cosine of the state and the last executed      MuE (arXiv 2211.11152); CALM's "state"
                layer's input

A token leaves before layer l when confidence >= the threshold of its step; it is checked before the layers named by
`check`, since every check of a softmax measure costs an LM head, which the meter charges. Thresholds may decay over the
text, x = step / limit and tau = 4: "paper" clip(0.9·λ + 0.1·exp(-tau·x)), "code" λ·(0.9 + 0.1·exp(-tau·x)).

Faithful: the measures, both decays, the state passed up so that upper layers project their own K and V. Different: rows
of a batch leave one by one, where CALM's code waits for the least confident row; no classifier, no calibration with
guarantees; the backbone is not trained for exits.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dlbench.method import Action, Knob, Method, View


@dataclass
class ConfidenceExit(Method):
    """Leave as soon as the exit head or the state looks confident."""

    kv: ClassVar[tuple[str, ...]] = ("project", "evict", "recompute")
    knob: ClassVar[Knob | None] = Knob("threshold", 0.0, 1.0)

    threshold: float = 0.9
    measure: Literal["top2", "top1", "entropy", "saturation"] = "top2"
    decay: Literal["none", "paper", "code"] = "none"
    tau: float = 4.0
    min_layers: int = 1
    """Layers that always run."""
    check: tuple[int, ...] = ()
    """Layers before which to check; empty: every second one."""

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [-1, 1], not {self.threshold}")
        if self.measure not in ("top2", "top1", "entropy", "saturation"):
            raise ValueError(f"measure must be top2, top1, entropy or saturation, not {self.measure!r}")
        if self.decay not in ("none", "paper", "code"):
            raise ValueError(f"decay must be none, paper or code, not {self.decay!r}")
        if self.min_layers < 1:
            raise ValueError(f"min_layers must be at least 1, not {self.min_layers}")

    def validate(self, depth: int) -> None:
        if bad := [i for i in self.check if not 0 < i < depth]:
            raise ValueError(f"cannot check before layer {bad[0]} of {depth}; layers 1 to {depth - 1} can be checked")

    def thresholds(self, step: Tensor, limit: Tensor) -> Tensor:
        """Threshold of each token: [n]."""
        decayed = torch.exp(-self.tau * step / limit.double())
        if self.decay == "paper":
            return (0.9 * self.threshold + 0.1 * decayed).clamp(0, 1)
        if self.decay == "code":
            return self.threshold * (0.9 + 0.1 * decayed)
        return torch.full_like(decayed, self.threshold)

    def confidence(self, view: View) -> Tensor:
        """The chosen measure: [n]."""
        if self.measure == "saturation":
            before = view.before
            assert before is not None  # min_layers >= 1 and nothing is skipped, so layer 0 has run
            cosine: Tensor = torch.cosine_similarity(before, view.hidden, dim=-1)
            return cosine
        p = view.logits().float().softmax(-1)  # [n, vocabulary]
        if self.measure == "entropy":
            entropy: Tensor = torch.special.entr(p).sum(-1)
            return 1 - entropy / math.log(p.shape[-1])
        best = p.topk(2, dim=-1).values
        return best[:, 0] - best[:, 1] if self.measure == "top2" else best[:, 0]

    def route(self, view: View) -> Action | Tensor:
        due = view.layer in self.check if self.check else view.layer % 2 == 0
        if not due or view.layer < self.min_layers:
            return Action.RUN
        leave = view.at_least(self.confidence(view), self.thresholds(view.step, view.limit))
        return torch.where(leave, int(Action.EXIT), int(Action.RUN))
