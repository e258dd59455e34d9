"""The frontier of a group of rows: the best quality reached at each cost or below, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FrontierCurve:
    """The best of some rows at every cost, with its 95 % band.

    Attributes:
        xs: costs, rising.
        ys, lows, highs: quality at each cost, and the bounds of its interval.
    """

    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


Frontiers = Mapping[str, FrontierCurve]
"""By group: `methods` and `controls`, as far as there are any."""
