"""Exits by confidence."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from dlbench.method.base import Action, Knob, Method
from dlbench.method.view import View


@dataclass
class Exit(Method):
    """Leave the stack as soon as a confidence reaches a threshold; a token that leaves runs no later layer."""

    kv: ClassVar[tuple[str, ...]] = ("project", "evict", "recompute")
    knob: ClassVar[Knob | None] = Knob("threshold", 0.0, 1.0)

    threshold: float = 0.9
    check: tuple[int, ...] = ()
    """Layers before which to look; empty: all that may be left before, as in the papers. A look at the logits costs an
    LM head, which the meter charges: on a small model, or with a large vocabulary, fewer looks save more."""
    min_layers: int = 1
    """Layers that always run."""
    leave: Literal["row", "batch"] = "row"
    """row: each by itself; batch: all together, once the least confident may, as implementations in batches do."""

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
        """The layers before which it looks."""
        return tuple(layer for layer in self.check or range(1, depth) if layer >= self.min_layers)

    @abstractmethod
    def confidence(self, view: View) -> Tensor:
        """How sure each token is: [n]."""

    def thresholds(self, view: View) -> float | Tensor:
        """What the confidence is held against: one number, or one per token ([n])."""
        return self.threshold

    @final
    def route(self, view: View) -> Action | Tensor:
        if view.layer not in self.checked(view.depth):
            return Action.RUN
        done = view.at_least(self.confidence(view), self.thresholds(view))
        if self.leave == "batch":
            return Action.EXIT if bool(done.all()) else Action.RUN
        return torch.where(done, int(Action.EXIT), int(Action.RUN))
