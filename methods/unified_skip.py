"""Unified Layer Skipping (Liu et al., arXiv 2404.06954): a static set chosen from the target speed-up alone.

Exact rule for an integer speed-up s and depth L: the first and the last layer, and every layer i with i mod step = 0
until n = ⌊L/s⌋ are kept, where step = ⌊L/(n-1)⌋. Decoding only, after a full-depth prompt.

Different: for 1 < s < 2 that step is 1 and the set would be a prefix plus the last layer, and n = 1 has no step.
Wherever the exact rule does not apply, the rule named `rounded` keeps the layers ⌊i·(L-1)/(n-1) + ½⌋, first and last
included.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from dlbench.method import Knob, Static


def exact(depth: int, speedup: int) -> frozenset[int]:
    """The paper's set for an integer speed-up.

    Raises:
        ValueError: fewer than two layers would remain.
    """
    count = depth // speedup
    if count < 2:
        raise ValueError(f"a speed-up of {speedup} leaves {count} of {depth} layers; the exact rule needs two")
    step = depth // (count - 1)
    kept = {0, depth - 1}
    for layer in range(1, depth - 1):
        if layer % step == 0 and len(kept) < count:
            kept.add(layer)
    return frozenset(kept)


def rounded(depth: int, count: int) -> frozenset[int]:
    """`count` layers, evenly spaced between the first and the last."""
    if count < 2:
        return frozenset({0})
    return frozenset((2 * i * (depth - 1) + count - 1) // (2 * (count - 1)) for i in range(count))


@dataclass
class UnifiedSkip(Static):
    """Keep evenly spaced layers with the first and the last, set by the speed-up."""

    knob: ClassVar[Knob | None] = Knob("speedup", 100.0, 1.0)

    speedup: float = 2.0
    """Target speed-up: depth ÷ kept layers."""
    rule: Literal["exact", "rounded"] = "exact"

    def __post_init__(self) -> None:
        if not self.speedup >= 1:
            raise ValueError(f"speedup must be at least 1, not {self.speedup}")
        if self.rule not in ("exact", "rounded"):
            raise ValueError(f"rule must be exact or rounded, not {self.rule!r}")
        if self.rule == "exact" and self.speedup != int(self.speedup):
            raise ValueError(f"the exact rule takes an integer speed-up, not {self.speedup}; use rule=rounded")

    def layers(self, depth: int) -> frozenset[int]:
        if self.rule == "exact":
            return exact(depth, int(self.speedup))
        return rounded(depth, max(1, round(depth / self.speedup)))

    def at(self, budget: float, depth: int) -> Self:
        speedup = 1 / budget
        whole = round(speedup)
        if whole >= 2 and abs(speedup - whole) < 1e-9 and depth // whole >= 2:
            return type(self)(speedup=whole, rule="exact")
        return type(self)(speedup=speedup, rule="rounded")
