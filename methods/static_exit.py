"""Every token leaves after the first k layers: static early exit (Glavas et al., arXiv 2410.20022, section 4).

The final norm and the LM head are applied to the state after layer k; nothing is trained for it.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from dlbench.method import Knob, Static


@dataclass
class StaticExit(Static):
    """Run only the first layers and leave."""

    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)

    share: float = 0.5
    """Share of the layers run."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], not {self.share}")

    def layers(self, depth: int) -> frozenset[int]:
        return frozenset(range(max(1, round(self.share * depth))))

    def at(self, budget: float, depth: int) -> Self:
        return type(self)(share=budget)
