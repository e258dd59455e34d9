"""Fixed plans."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from dlbench.method.base import Action, Method, Scope
from dlbench.method.view import View


@dataclass
class Static(Method):
    """A fixed set of layers, or of halves of layers, the same for every token of every sequence."""

    @property
    @final
    def scope(self) -> Scope:
        return "static"

    @abstractmethod
    def layers(self, depth: int) -> frozenset[int]:
        """The layers of a backbone of `depth` layers that are executed, wholly or in part."""

    def actions(self, depth: int) -> tuple[Action, ...]:
        """What every token does, layer by layer; whole layers unless a method says otherwise."""
        chosen = self.layers(depth)
        return tuple(Action.RUN if i in chosen else Action.SKIP for i in range(depth))

    @final
    def live(self, depth: int) -> frozenset[int]:
        return self.layers(depth)

    def validate(self, depth: int) -> None:
        chosen = self.layers(depth)
        if strange := [one for one in chosen if type(one) is not int]:
            raise ValueError(f"layers are whole numbers from 0, and {strange[0]!r} is none")
        if not chosen or min(chosen) < 0 or max(chosen) >= depth:
            raise ValueError(f"layers {sorted(chosen)} do not fit a backbone of {depth} layers: 0 to {depth - 1} do")

    @final
    def route(self, view: View) -> Action:
        return self.actions(view.depth)[view.layer]


@final
@dataclass
class LayerSet(Static):
    """A set of layers given outright, for methods that are made of such sets."""

    chosen: tuple[int, ...]

    def layers(self, depth: int) -> frozenset[int]:
        return frozenset(self.chosen)
