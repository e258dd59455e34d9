"""SLEB (Song et al., arXiv 2402.09025): remove redundant blocks greedily, by the likelihood of calibration text.

Of the layers that remain, the one is removed without which the negative log-likelihood of the calibration text is
lowest; then all others are scored again. The first and the last layer stay.

Faithful: the greedy rule with re-scoring, the protected ends, and that layers are chosen as they are then dropped.
Different: the calibration text is the references of the task's fit split (`texts` of them), where the authors take 128
passages of WikiText-2; layers are dropped in decoding after a full-depth prompt, and candidates scored so, unless
`--prompt routed` drops them everywhere, as the paper does.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from dlbench.method import Knob, LayerSet, Probe, Static


@dataclass
class Sleb(Static):
    """Remove one layer after the other, each time the one that is missed least."""

    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)
    fitted: ClassVar[bool] = True

    share: float = 0.5
    """Share of the layers kept."""
    texts: int = 16
    """References that are scored, the first of those to learn from."""
    order: tuple[int, ...] = ()
    """Layers in the order of their removal; found by the fit where none is given."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], not {self.share}")
        if self.texts < 1:
            raise ValueError(f"texts must be at least 1, not {self.texts}")

    @property
    def learns(self) -> bool:
        return not self.order

    def validate(self, depth: int) -> None:
        if depth < 3:
            raise ValueError(f"the first and the last layer stay: of {depth} layers there is none to remove")
        super().validate(depth)

    def layers(self, depth: int) -> frozenset[int]:
        gone = min(depth - max(1, round(self.share * depth)), depth - 2)
        return frozenset(range(depth)) - set((self.order or tuple(range(1, depth - 1)))[:gone])

    def at(self, budget: float, depth: int) -> Self:
        return replace(self, share=budget)

    def fit(self, probe: Probe) -> None:
        left, order = list(range(probe.depth)), []
        steps, done = (probe.depth - 2) * (probe.depth - 1) // 2, 0
        while len(left) > 2:
            scored = []
            for layer in left[1:-1]:
                scored.append((probe.nll(LayerSet(tuple(i for i in left if i != layer)), self.texts), layer))
                done += 1
                probe.say(done, steps)
            order.append(min(scored)[1])
            left.remove(order[-1])
        self.order = tuple(order)
