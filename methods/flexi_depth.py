"""FlexiDepth (Luo et al., arXiv 2503.23798): a router and an adapter beside every gated layer.

Router: RMSNorm → Linear(d→d/16) → RMSNorm → tanh → Linear(→d) → Linear(→1), without biases, and a sigmoid cut at 0.5,
in training as in use. A token whose gate is open runs the layer, and what that adds is multiplied by the gate's value;
another one passes a small SwiGLU adapter, multiplied by one minus the gate's value, and its keys and values are still
computed. Only the upper half of the layers is gated.

Faithful: the router, the adapter (as wide, for its model, as the authors' for Llama-3-8B), the scaling of both, the
deterministic gate, keys and values kept (project), a frozen backbone. The norms before both have no gain, which the
linear maps behind them hold as well. Different: the gate scales all that a layer adds, where the authors' model scales
the feed-forward alone; trained to a target share with the squared distance, through the cut as well as through the
scaling, where the paper adds the squared sum of a token's gates and learns through the scaling alone; the adapter adds
nothing at first; prompts run at full depth, where the paper routes them too; on backbones with LayerNorm the input is
not centred; the threshold is then tuned to the budget. The authors report no gain in time, and the meter charges router
and adapter.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from dlbench.method import Probe, Router


class _Adapter(nn.Module):
    """A SwiGLU of 7/32 of the width, which adds nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(1, round(7 * width / 32))
        self.norm = nn.RMSNorm(width, eps=1e-6, elementwise_affine=False)
        self.gate, self.up = (nn.Linear(width, narrow, bias=False) for _ in range(2))
        self.down = nn.Linear(narrow, width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        x = self.norm(hidden)
        added: Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return added


def _router(width: int) -> nn.Module:
    """State [..., width] -> score [..., 1]."""
    narrow = max(1, width // 16)
    return nn.Sequential(
        nn.RMSNorm(width, eps=1e-6, elementwise_affine=False),
        nn.Linear(width, narrow, bias=False),
        nn.RMSNorm(narrow, eps=1e-6),
        nn.Tanh(),
        nn.Linear(narrow, width, bias=False),
        nn.Linear(width, 1, bias=False),
    )


class _Layers(nn.Module):
    """Router and adapter of each gated layer."""

    def __init__(self, first: int, depth: int, width: int) -> None:
        super().__init__()
        self.first = first
        self.routers = nn.ModuleList(_router(width) for _ in range(first, depth))
        self.adapters = nn.ModuleList(_Adapter(width) for _ in range(first, depth))

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        score: Tensor = self.routers[layer - self.first](hidden)[..., 0]
        return score


@dataclass
class FlexiDepth(Router):
    """Run a layer, scaled by its gate, or pass a small adapter, scaled by the rest."""

    kv: ClassVar[tuple[str, ...]] = ("project",)
    scaled: ClassVar[bool] = True

    gated_share: float = 0.5
    """Share of the layers that are gated, from the top."""
    steps: int = 120
    """Training steps."""
    lr: float = 3e-3
    weight: float = 20.0
    """Weight of the squared distance from the target share."""

    def __post_init__(self) -> None:
        if not 0 < self.gated_share < 1:
            raise ValueError(f"gated_share must lie in (0, 1), not {self.gated_share}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")

    def build(self, depth: int, width: int) -> nn.Module:
        return _Layers(min(self.gated(depth)), depth, width)

    def gated(self, depth: int) -> frozenset[int]:
        return frozenset(range(depth - max(1, round(self.gated_share * depth)), depth))

    def bypass(self, layer: int) -> nn.Module | None:
        if self._module is None or layer < self._module.first:  # type: ignore[operator]
            return None
        adapters = self._module.adapters
        assert isinstance(adapters, nn.ModuleList)
        return adapters[layer - int(self._module.first)]  # type: ignore[arg-type]

    def fit(self, probe: Probe) -> None:
        share = probe.budget or 0.75
        probe.train(self, steps=self.steps, lr=self.lr, weight=self.weight, share=share, noise=False)
