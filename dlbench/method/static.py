"""Base class of methods that run a fixed set of layers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from dlbench.method.actions import Action, Scope
from dlbench.method.base import Method
from dlbench.method.view import View


@dataclass
class Static(Method):
    """A fixed set of layers, or of halves of layers, for every token of every sequence."""

    @property
    @final
    def scope(self) -> Scope:
        return "static"

    @abstractmethod
    def layers(self, depth: int) -> frozenset[int]:
        """The layers that are executed, wholly or in part, of a backbone with `depth` layers."""

    def actions(self, depth: int) -> tuple[Action, ...]:
        """The action of every token at each layer: [depth]; whole layers by default."""
        chosen = self.layers(depth)
        return tuple(Action.RUN if i in chosen else Action.SKIP for i in range(depth))

    @final
    def live(self, depth: int) -> frozenset[int]:
        return self.layers(depth)

    def validate(self, depth: int) -> None:
        chosen = self.layers(depth)
        if invalid := [layer for layer in chosen if type(layer) is not int]:
            raise ValueError(f"layers are whole numbers from 0; {invalid[0]!r} is not one")
        if not chosen or min(chosen) < 0 or max(chosen) >= depth:
            raise ValueError(f"layers {sorted(chosen)} do not fit a backbone of {depth} layers: 0 to {depth - 1} do")

    @final
    def route(self, view: View) -> Action:
        return self.actions(view.depth)[view.layer]


@final
@dataclass
class LayerSet(Static):
    """A given set of layers; other methods are built from it."""

    chosen: tuple[int, ...]

    def layers(self, depth: int) -> frozenset[int]:
        return frozenset(self.chosen)
