"""Router-Tuning with MindSkip (He et al., arXiv 2410.13184): gate attention, feed-forwards always run.

A router per layer, Linear(d→1) and a sigmoid cut at 0.5, trained straight-through on a frozen backbone. `per=sequence`
decides once from the mean state of the prompt; `per=token` decides for every token.

Faithful: the router, the frozen backbone, both modes, attention sub-layers. Different: trained to a target share with
the squared distance, where the paper weighs the mean gate; the input is scaled to a mean square of 1. As feed-forwards
always run, small budgets are unreachable.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from dlbench.method import Action, Probe, Router, Scope


class _Gates(nn.Module):
    """One linear map per layer: state [..., width] -> score [...]; open at first."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(width, 1) for _ in range(depth - 1))
        for gate in self.gates:
            assert isinstance(gate, nn.Linear)
            nn.init.normal_(gate.weight, std=0.01)
            nn.init.constant_(gate.bias, 1.0)

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        hidden = hidden.detach()
        seen = hidden * hidden.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
        score: Tensor = self.gates[layer - 1](seen)[..., 0]
        return score


@dataclass
class MindSkip(Router):
    """Skip the attention of layers that a token, or a whole text, does not need."""

    part: ClassVar[Action] = Action.ATTN
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"per": "sequence"}, {"per": "token"})

    per: Literal["sequence", "token"] = "sequence"
    steps: int = 60
    """Training steps."""
    lr: float = 1e-2
    weight: float = 20.0
    """Weight of the squared distance from the target share."""

    def __post_init__(self) -> None:
        if self.per not in ("sequence", "token"):
            raise ValueError(f"per must be sequence or token, not {self.per!r}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    @property
    def scope(self) -> Scope:
        return self.per

    def build(self, depth: int, width: int) -> nn.Module:
        return _Gates(depth, width)

    def gated(self, depth: int) -> frozenset[int]:
        return frozenset(range(1, depth))

    def fit(self, probe: Probe) -> None:
        share = probe.budget or 0.75
        probe.train(self, steps=self.steps, lr=self.lr, weight=self.weight, share=share)
