"""Base class of methods that speculate with their own layers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import final

from torch import Tensor

from dlbench.method.actions import Action, Scope
from dlbench.method.base import Method
from dlbench.method.static import Static
from dlbench.method.view import View


@dataclass
class Draft(Method):
    """Draft a few tokens with some of the layers, then verify them with all: the text equals that of full depth.

    Where the draft runs the first layers, their results are kept and only the later layers verify; after any other
    draft all layers verify.
    """

    length: int = 4
    """Maximum number of tokens drafted per round."""

    @abstractmethod
    def drafter(self, depth: int) -> Static:
        """The layers used for drafting."""

    def goes_on(self, p: Tensor) -> Tensor:
        """Whether to draft another token after a token of probability `p`: [n] → bool [n]."""
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
