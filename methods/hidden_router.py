"""The per-token controller of the paper (Glavas et al., arXiv 2410.20022, section 3), and its learned-constant control.

Before every layer but the first and the last, a small network looks at the token's state and gives two logits, keep
and skip; Gumbel noise on both decides. Trained with straight-through gates through the frozen backbone.
With `fixed_input` the same controller is fed ones instead of the state: it can only learn one skip rate per layer. A
router that does not beat this control is not using the hidden state.

Faithful: layers 1..L-2, linear or one-hidden-layer MLP of width d/8, detached input, noise at evaluation too (`noisy`;
switch it off for an argmax). Different: the input is scaled to a mean square of 1, since states grow with depth and one
learning rate must serve all layers; trained to a target share, CE + weight·(share - target)², unless `alpha` asks for
the paper's CE + α·share; `threshold` shifts the keep logit, so that the realised share can be tuned without training
again.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dlbench.method import Probe, Router, View


class Controller(nn.Module):
    """One small network per gated layer: state [..., width] -> keep logit minus skip logit [...]."""

    def __init__(self, depth: int, width: int, kind: str, fixed_input: bool) -> None:
        super().__init__()
        self.fixed_input = fixed_input
        self.gates = nn.ModuleList()
        for _ in range(depth - 2):
            if kind == "linear":
                self.gates.append(nn.Linear(width, 2))
            else:
                narrow = max(1, width // 8)
                self.gates.append(nn.Sequential(nn.Linear(width, narrow), nn.ReLU(), nn.Linear(narrow, 2)))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.01) if parameter.ndim > 1 else nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        hidden = hidden.detach()
        scale = hidden.float().square().mean(-1, keepdim=True).add(1e-6).rsqrt().to(hidden)
        seen = torch.ones_like(hidden) if self.fixed_input else hidden * scale
        logits: Tensor = self.gates[layer - 1](seen)
        return logits[..., 0] - logits[..., 1]


@dataclass
class HiddenRouter(Router):
    """A trained controller decides per token and layer from the hidden state."""

    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"fixed_input": False}, {"fixed_input": True})

    fixed_input: bool = False
    """Feed ones instead of the state: the learned constant."""
    kind: Literal["linear", "mlp"] = "linear"
    noisy: bool = True
    """Sample the gate at evaluation, as the paper does; False takes the likelier side."""
    steps: int = 60
    """Training steps."""
    lr: float = 1e-2
    weight: float = 20.0
    """Weight of the squared distance from the target share."""
    alpha: float | None = None
    """The paper's cost weight: train with CE + alpha · share, to no target; one row, at the share that comes of it."""

    def __post_init__(self) -> None:
        if self.kind not in ("linear", "mlp"):
            raise ValueError(f"kind must be linear or mlp, not {self.kind!r}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    @property
    def tuned(self) -> bool:
        return self.alpha is None

    def build(self, depth: int, width: int) -> Controller:
        return Controller(depth, width, self.kind, self.fixed_input)

    def gated(self, depth: int) -> frozenset[int]:
        return frozenset(range(1, depth - 1))

    def noise(self, view: View) -> Tensor | float:
        if not self.noisy:
            return 0.0
        u = view.uniform(1)[:, 0].clamp(1e-12, 1 - 1e-12)
        return torch.logit(u).float()  # a difference of two Gumbel variables is logistic

    def fit(self, probe: Probe) -> None:
        if self.alpha is None:
            probe.train(self, share=probe.budget or 0.5, steps=self.steps, lr=self.lr, weight=self.weight)
        else:
            probe.train(self, steps=self.steps, lr=self.lr, weight=self.alpha, cost="linear")
