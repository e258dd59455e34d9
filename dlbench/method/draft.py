"""Self-speculation."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from torch import Tensor

from dlbench.method.base import Action, Method, Scope
from dlbench.method.static import Static
from dlbench.method.view import View


@dataclass
class Draft(Method):
    """Draft a few tokens with some of the layers, then verify them with all: the text is that of full depth.

    The layers of the draft come before or among those that verify: what a draft of the first layers has computed is
    kept, so that only the others run again; of any other draft all layers verify.
    """

    length: int = 4
    """Most tokens drafted in a round."""

    @abstractmethod
    def drafter(self, depth: int) -> Static:
        """The layers that draft."""

    def goes_on(self, p: Tensor) -> Tensor:
        """Whether to draft another token after one of this probability: [n] -> bool [n]."""
        return p >= 0

    @property
    @final
    def scope(self) -> Scope:
        return "static"

    def validate(self, depth: int) -> None:
        if self.length < 1:
            raise ValueError(f"length must be at least 1, not {self.length}")
        self.drafter(depth).validate(depth)

    @final
    def route(self, view: View) -> Action:
        return Action.RUN
