"""A fixed set of layers, evenly thinned: the paper's static skipping (Glavas et al., arXiv 2410.20022, section 4).

At half of the layers this is the paper's set, layers 0, 2, 4, …: every odd layer is skipped, the last one too (unlike
unified layer skipping, which keeps it). `only` takes any set outright.

Different: the paper names no set for other budgets; here they keep layer ⌊i·depth/keep⌋ for i < keep.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

from dlbench.method import Knob, Static


@dataclass
class StaticSkip(Static):
    """Skip a fixed, evenly spread set of layers."""

    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)

    share: float = 0.5
    """Share of the layers kept."""
    only: tuple[int, ...] = ()
    """Executed layers, given outright; takes the place of `share`."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], not {self.share}")

    def layers(self, depth: int) -> frozenset[int]:
        if self.only:
            return frozenset(self.only)
        keep = max(1, round(self.share * depth))
        return frozenset(i * depth // keep for i in range(keep))

    def at(self, budget: float, depth: int) -> Self:
        return self if self.only else type(self)(share=budget)
