"""FlexiDepth (Luo et al., arXiv 2503.23798): a router and an adapter beside every gated layer.

Router: RMSNorm → Linear(d→d/16) → GELU → Linear(→d) → Linear(→1), a sigmoid cut at the threshold. A token whose gate is
open runs the layer, whose contribution is multiplied by the gate's value; another one passes a small SwiGLU adapter,
multiplied by one minus it, and its keys and values are still computed. Only the upper half of the layers is gated.

Faithful: the bottleneck router, the scaled contributions, adapters for skipped tokens, keys and values kept (project),
a frozen backbone. Different: trained to a target share; the router's middle is d/16 → 1 directly. The authors report no
gain in time, and the meter charges router and adapter.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from dlbench.method import Probe, Router


class _Adapter(nn.Module):
    """A SwiGLU of width d/8, which adds nothing at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(1, width // 8)
        self.norm = nn.RMSNorm(width)
        self.gate, self.up = (nn.Linear(width, narrow, bias=False) for _ in range(2))
        self.down = nn.Linear(narrow, width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        x = self.norm(hidden)
        added: Tensor = self.down(nn.functional.silu(self.gate(x)) * self.up(x))
        return added


class _Layers(nn.Module):
    """Router and adapter of each gated layer."""

    def __init__(self, first: int, depth: int, width: int) -> None:
        super().__init__()
        self.first, narrow = first, max(1, width // 16)
        self.routers, self.adapters = nn.ModuleList(), nn.ModuleList()
        for _ in range(first, depth):
            last = nn.Linear(narrow, 1)
            nn.init.normal_(last.weight, std=0.01)
            nn.init.constant_(last.bias, 3.0)  # a contribution of 0.95 at first
            self.routers.append(nn.Sequential(nn.RMSNorm(width), nn.Linear(width, narrow), nn.GELU(), last))
            self.adapters.append(_Adapter(width))

    def forward(self, hidden: Tensor, layer: int) -> Tensor:
        score: Tensor = self.routers[layer - self.first](hidden)[..., 0]
        return score


@dataclass
class FlexiDepth(Router):
    """Run a layer, scaled by its gate, or pass a small adapter."""

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
        probe.train(self, steps=self.steps, lr=self.lr, weight=self.weight, share=share)
