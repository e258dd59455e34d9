"""ShortGPT (Men et al., arXiv 2403.03853): drop the layers that change the state least.

Block influence of layer i: BI_i = 1 - E[cos(h_i, h_i+1)] over all tokens of calibration text. The layers of lowest
influence go first.

Faithful: the measure and the one-shot order. Different: the calibration text is the task's fit split, and layers are
dropped in decoding after a full-depth prompt unless `--prompt routed` drops them everywhere, as the paper does.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from dlbench.method import Action, Knob, Probe, Static


@dataclass
class ShortGpt(Static):
    """Drop the layers of lowest block influence."""

    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)
    fitted: ClassVar[bool] = True

    share: float = 0.5
    """Share of the layers kept."""
    influence: tuple[float, ...] = ()
    """Block influence of each layer; measured by the fit where none is given."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], not {self.share}")

    @property
    def learns(self) -> bool:
        return not self.influence

    def layers(self, depth: int) -> frozenset[int]:
        keep = max(1, round(self.share * depth))
        if not self.influence:
            return frozenset(range(keep))  # a place holder until the fit has measured
        if len(self.influence) != depth:
            raise ValueError(f"influence has {len(self.influence)} numbers for {depth} layers")
        return frozenset(sorted(range(depth), key=lambda i: (-self.influence[i], i))[:keep])

    def at(self, budget: float, depth: int) -> Self:
        return replace(self, share=budget)

    def fit(self, probe: Probe) -> None:
        self.influence = tuple(1 - cosine for cosine in probe.similarity(Action.RUN))
