"""D-LLM (Jiang et al., NeurIPS 2024): a router before every layer, and skipped tokens evicted from its cache.

Router: Linear(d→512) → RMSNorm → SiLU → Linear(→2), last bias (0.1, 2.0) for skip and run; trained with Gumbel
straight-through gates, deterministic in use. The first two layers, and the first two tokens of the sequence, always
run. Loss: CE + λ·mean over tokens of |share of the layers that the token ran - target|; λ rises from 0 to 5 as
5·sin(π/2 · progress).

Faithful: the router, what always runs, the loss and how its weight rises, and the kv policy (evict) in training and
use. Different: prompts run at full depth, where the authors route them too, so that the loss is over the decoded tokens
(the two that are spared are then tokens of the prompt); the backbone stays frozen (the authors train LoRA weights along
with the router); the input is scaled to a mean square of 1, since one learning rate must serve layers whose states
differ in size, and the last weights begin small; the gradient does not pass through the mask that evicts; the threshold
is then tuned to the budget.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from dlbench.method import Probe, Router


class _Gates(nn.Module):
    """One network per gated layer: state [..., width] -> run logit minus skip logit [...]."""

    def __init__(self, first: int, depth: int, width: int, inner: int) -> None:
        super().__init__()
        self.first = first
        self.gates = nn.ModuleList()
        for _ in range(first, depth):
            last = nn.Linear(inner, 2)
            nn.init.normal_(last.weight, std=0.01)
            with torch.no_grad():
                last.bias.copy_(torch.tensor([0.1, 2.0]))
            self.gates.append(nn.Sequential(nn.Linear(width, inner), nn.RMSNorm(inner), nn.SiLU(), last))

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        hidden = hidden.detach()
        seen = hidden * hidden.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
        logits: Tensor = self.gates[layer - self.first](seen)
        return logits[..., 1] - logits[..., 0]


@dataclass
class DLlm(Router):
    """Route every token by a small network, and forget the keys and values of skipped ones."""

    kv: ClassVar[tuple[str, ...]] = ("evict", "project")

    inner: int = 512
    """Width of the router's hidden layer."""
    first: int = 2
    """Lowest layers that always run."""
    warm_up: int = 2
    """First tokens of the sequence, prompt included, that run every layer."""
    steps: int = 60
    """Training steps."""
    lr: float = 2e-3
    weight: float = 5.0
    """Weight of the distance from the target share at the end of the training; it rises from 0."""

    def __post_init__(self) -> None:
        if self.inner < 1 or self.first < 1 or self.warm_up < 0 or self.steps < 1:
            raise ValueError("inner, first and steps must be at least 1, warm_up at least 0")

    def validate(self, depth: int) -> None:
        if self.first >= depth:
            raise ValueError(f"first={self.first} leaves no layer of {depth} to gate")

    def build(self, depth: int, width: int) -> nn.Module:
        return _Gates(self.first, depth, width, self.inner)

    def gated(self, depth: int) -> frozenset[int]:
        return frozenset(range(self.first, depth))

    def spared(self, step: Tensor, position: Tensor) -> Tensor:
        return position < self.warm_up

    def fit(self, probe: Probe) -> None:
        share = probe.budget or 0.5
        probe.train(self, steps=self.steps, lr=self.lr, weight=self.weight, cost="absolute", share=share, rises=True)
