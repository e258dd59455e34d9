"""The instance-aware dynamic exit of Sorted LLaMA (Kavehzadeh et al., arXiv 2309.08968).

Only the intermediate sub-models that a backbone was trained for are looked at, the smallest first: a token leaves after
the first n layers when the highest probability of the shared head there reaches the threshold. `dlbench train sorted`
makes such a backbone; on any other the rule runs as well, with the exits given.

Faithful: exits at the sub-models only, one shared final norm and head, confidence of the likeliest token. Different:
each token decides by itself, where the paper's code decides for a batch of one.
"""

from dataclasses import dataclass

from torch import Tensor

from dlbench.method import Exit, View


@dataclass
class SortedExit(Exit):
    """Leave at the first trained sub-model that is confident."""

    threshold: float = 0.9
    exits: int = 7
    """Sub-models below full depth, evenly spaced, where `check` names none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exits < 1:
            raise ValueError(f"exits must be at least 1, not {self.exits}")

    def checked(self, depth: int) -> tuple[int, ...]:
        spaced = {round(i * depth / (self.exits + 1)) for i in range(1, self.exits + 1)} - {0, depth}
        return tuple(layer for layer in self.check or sorted(spaced) if layer >= self.min_layers)

    def confidence(self, view: View) -> Tensor:
        return view.logits().float().softmax(-1).amax(-1)
