"""Router-Tuning with MindSkip (He et al., arXiv 2410.13184): gate attention, feed-forwards always run.

A router in each of the deep layers but the last, Linear(d→1) without a bias, reads what attention reads: the normed
state. Its sigmoid is cut at 0.5, in training as in use, and the gradient passes straight through the cut.
`per=sequence` decides once, from the mean of the prompt's normed states; `per=token` decides for every token. Keys and
values of tokens that skip are kept, as they are needed.

Faithful: the router and how it begins, which layers it stands in (half of the depth, right below the last), its
deterministic straight-through gate, the frozen backbone, both modes, attention sub-layers. The scaling to a mean square
of 1 is RMSNorm without its gain, which a linear map without a bias holds as well. Different: prompts run at full depth,
where the paper routes them too, and a text holds to its prompt's decision, where the authors' code decides anew for
each decoded token; on backbones with LayerNorm the input is not centred; trained to a target share with the squared
distance, where the authors add what each layer's mean gate exceeds a target by; the threshold is then tuned to the
budget. As feed-forwards and the other attentions always run, small budgets are unreachable.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from dlbench.method import Action, Probe, Prompt, Router, Scope


class _Gates(nn.Module):
    """One linear map per gated layer: state [..., width] -> score [...]."""

    def __init__(self, layers: frozenset[int], width: int, normed: bool) -> None:
        super().__init__()
        self.first, self.normed = min(layers), normed
        self.gates = nn.ModuleList(nn.Linear(width, 1, bias=False) for _ in layers)

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        seen = hidden.detach()
        if not self.normed:
            seen = seen * seen.square().mean(-1, keepdim=True).add(1e-6).rsqrt()
        score: Tensor = self.gates[layer - self.first](seen)[..., 0]
        return score


@dataclass
class MindSkip(Router):
    """Skip the attention of deep layers that a token, or a whole text, does not need."""

    part: ClassVar[Action] = Action.ATTN
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({"per": "sequence"}, {"per": "token"})

    per: Literal["sequence", "token"] = "sequence"
    gated_share: float = 0.5
    """Share of the layers that are gated: the deepest but the last."""
    steps: int = 60
    """Training steps."""
    lr: float = 1e-2
    weight: float = 20.0
    """Weight of the squared distance from the target share."""

    def __post_init__(self) -> None:
        if self.per not in ("sequence", "token"):
            raise ValueError(f"per must be sequence or token, not {self.per!r}")
        if not 0 < self.gated_share <= 1:
            raise ValueError(f"gated_share must lie in (0, 1], not {self.gated_share}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def validate(self, depth: int) -> None:
        if depth < 2:
            raise ValueError("the last layer always runs: of one layer there is none to gate")

    @property
    def scope(self) -> Scope:
        return self.per

    def build(self, depth: int, width: int) -> nn.Module:
        return _Gates(self.gated(depth), width, normed=self.per == "sequence")

    def gated(self, depth: int) -> frozenset[int]:
        count = min(depth - 1, max(1, round(self.gated_share * depth)))
        return frozenset(range(depth - 1 - count, depth - 1))

    def summary(self, prompt: Prompt, layer: int) -> Tensor:
        return prompt.normed_mean(layer)

    def fit(self, probe: Probe) -> None:
        share = probe.budget or 0.75
        probe.train(self, steps=self.steps, lr=self.lr, weight=self.weight, share=share, noise=False)
