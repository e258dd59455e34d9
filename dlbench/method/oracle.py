"""Choosing among published candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dlbench.method.base import Parameters


@dataclass(frozen=True)
class Candidate:
    """One fixed set of executed layers that an oracle may choose for a document."""

    name: str
    layers: tuple[int, ...]


@dataclass
class Oracle(Parameters, ABC):
    """Chooses among published candidates per document, from how each of them scored. Never deployable."""

    deployable: ClassVar[bool] = False
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    @abstractmethod
    def candidates(self, depth: int) -> list[Candidate]:
        """The sets it may choose from, without duplicates; the full set is among them."""

    def validate(self, depth: int) -> None:
        """Check the parameters against a backbone's depth.

        Raises:
            ValueError: no candidate, one that does not fit, or the same layers or name twice.
        """
        found = self.candidates(depth)
        if not found:
            raise ValueError("the oracle has no candidates")
        for c in found:
            if not c.layers or min(c.layers) < 0 or max(c.layers) >= depth:
                raise ValueError(f"candidate {c.name!r} does not fit a backbone of {depth} layers")
        for i, c in enumerate(found):
            for other in found[:i]:
                if c.name == other.name or set(c.layers) == set(other.layers):
                    raise ValueError(f"candidates {other.name!r} and {c.name!r} share their name or their layers")
