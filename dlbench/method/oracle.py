"""Base class of oracles, which choose per document among published candidates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dlbench.method.actions import Parameters


@dataclass(frozen=True)
class Candidate:
    """A fixed set of executed layers that an oracle may choose for a document."""

    name: str
    layers: tuple[int, ...]


@dataclass
class Oracle(Parameters, ABC):
    """Chooses one candidate per document, from the candidates' scores on it. Never deployable."""

    deployable: ClassVar[bool] = False
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    @abstractmethod
    def candidates(self, depth: int) -> list[Candidate]:
        """The candidates, without duplicates; the full set of layers is one of them."""

    def validate(self, depth: int) -> None:
        """Check the parameters against a backbone's depth.

        Raises:
            ValueError: there is no candidate, one does not fit, or two share their name or layers.
        """
        candidates = self.candidates(depth)
        if not candidates:
            raise ValueError("the oracle has no candidates")
        for c in candidates:
            if not c.layers or min(c.layers) < 0 or max(c.layers) >= depth:
                raise ValueError(f"candidate {c.name!r} does not fit a backbone of {depth} layers")
        for i, c in enumerate(candidates):
            for other in candidates[:i]:
                if c.name == other.name or set(c.layers) == set(other.layers):
                    raise ValueError(f"candidates {other.name!r} and {c.name!r} share their name or their layers")
