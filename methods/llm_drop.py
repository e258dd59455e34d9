"""LLM-Drop (He et al., arXiv 2406.15786): drop attention or feed-forward sub-layers that change the state least.

The importance of a sub-layer is 1 - cos(in, out), residual included, over calibration text; the least important ones
are dropped in one shot.

Faithful: the measure, per sub-layer, and the one-shot order. By default (`part=both`) all halves are ranked together,
the paper's joint layer drop; `part=attention` drops that half alone which the paper finds to be the more redundant one.
Different: the calibration text is the task's fit split. A dropped half counts by its share of the layer's FLOPs, so
dropping every attention of a backbone still leaves most of it: budgets below that are unreachable with
`part=attention`.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from dlbench.method import Action, Knob, Probe, Static


@dataclass
class LlmDrop(Static):
    """Drop the halves of layers that change the state least."""

    knob: ClassVar[Knob | None] = Knob("share", 0.0, 1.0)
    fitted: ClassVar[bool] = True

    share: float = 0.75
    """Share of the layers' cost kept."""
    part: Literal["attention", "mlp", "both"] = "both"
    """What may be dropped."""
    importance: tuple[float, ...] = ()
    """Of the attention of each layer, then of the feed-forward of each; measured by the fit where none is given."""
    attention_cost: tuple[float, ...] = ()
    """Share of each layer's FLOPs that its attention takes; measured by the fit."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1], not {self.share}")
        if self.part not in ("attention", "mlp", "both"):
            raise ValueError(f"part must be attention, mlp or both, not {self.part!r}")

    @property
    def learns(self) -> bool:
        return not self.importance

    def actions(self, depth: int) -> tuple[Action, ...]:
        if not self.importance:
            return (Action.RUN,) * depth  # until the fit has measured
        if len(self.importance) != 2 * depth or len(self.attention_cost) != depth:
            raise ValueError(f"importance and attention_cost are not those of {depth} layers")
        plan, cost = [Action.RUN] * depth, float(depth)
        for half in sorted(self._droppable(depth), key=lambda i: (self.importance[i], i)):
            layer, dropped = half % depth, Action.ATTN if half < depth else Action.MLP
            saved = self.attention_cost[layer] if half < depth else 1 - self.attention_cost[layer]
            if cost - saved < self.share * depth - saved / 2:  # nearest to the share, not below it at any price
                break
            plan[layer] &= ~dropped
            cost -= saved
        return tuple(plan)

    def _droppable(self, depth: int) -> range:
        return {"attention": range(depth), "mlp": range(depth, 2 * depth), "both": range(2 * depth)}[self.part]

    def layers(self, depth: int) -> frozenset[int]:
        return frozenset(i for i, action in enumerate(self.actions(depth)) if action)

    def at(self, budget: float, depth: int) -> Self:
        return replace(self, share=budget)

    def fit(self, probe: Probe) -> None:
        cosines = [*probe.similarity(Action.ATTN), *probe.similarity(Action.MLP)]
        self.importance = tuple(1 - cosine for cosine in cosines)
        self.attention_cost = tuple(probe.cost(layer, Action.ATTN) for layer in range(probe.depth))
