"""Base class of early exits by confidence."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from dlbench.method.actions import Action, Knob
from dlbench.method.base import Method
from dlbench.method.view import View


@dataclass
class Exit(Method):
    """Exit as soon as a confidence reaches a threshold; a token that exits runs no later layer."""

    kv: ClassVar[tuple[str, ...]] = ("project", "evict", "recompute")
    knob: ClassVar[Knob | None] = Knob("threshold", 0.0, 1.0)

    threshold: float = 0.9
    """Confidence from which on a token exits, in [-1, 1]."""
    check: tuple[int, ...] = ()
    """Layers before which the confidence is computed; empty: all from `min_layers` on, as in the papers. A confidence
    from logits costs an LM head each time, which is charged: with a small model or a large vocabulary, fewer checks
    save more."""
    min_layers: int = 1
    """Layers that always run."""
    leave: Literal["row", "batch"] = "row"
    """row: each row by itself; batch: all rows together, once the least confident may exit."""

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise ValueError(f"threshold must lie in [-1, 1], not {self.threshold}")
        if self.min_layers < 1:
            raise ValueError(f"min_layers must be at least 1, not {self.min_layers}")
        if self.leave not in ("row", "batch"):
            raise ValueError(f"leave must be row or batch, not {self.leave!r}")

    @property
    def batch_dependent(self) -> bool:
        return self.leave == "batch"

    def validate(self, depth: int) -> None:
        if bad := [i for i in self.check if not 0 < i < depth]:
            raise ValueError(f"cannot check before layer {bad[0]} of {depth}; layers 1 to {depth - 1} can be checked")

    def checked(self, depth: int) -> tuple[int, ...]:
        """The layers before which the confidence is computed."""
        return tuple(layer for layer in self.check or range(1, depth) if layer >= self.min_layers)

    @abstractmethod
    def confidence(self, view: View) -> Tensor:
        """Confidence of each token: [n]."""

    def thresholds(self, view: View) -> float | Tensor:
        """Threshold of the confidence: one number, or one per token ([n])."""
        return self.threshold

    @final
    def route(self, view: View) -> Action | Tensor:
        if view.layer not in self.checked(view.depth):
            return Action.RUN
        done = view.at_least(self.confidence(view), self.thresholds(view))
        if self.leave == "batch":
            return Action.EXIT if bool(done.all()) else Action.RUN
        return torch.where(done, int(Action.EXIT), int(Action.RUN))
