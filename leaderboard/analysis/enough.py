"""How much compute is enough: the one rule by which tables and sentences name the setting that keeps a share of full.

A method's settings are tested from the dearest down, by their share of full depth's total FLOPs, which is what a board
ranks on; see `dlbench.stats.compute_at`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dlbench import stats
from dlbench.stats.intervals import Bounds, Clusters
from dlbench.stats.resample import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SettingScores:
    """A setting of a method that ran.

    Attributes:
        total: realised share of full depth's total FLOPs.
        layers: realised layer share, where it is known.
        scores: [fit seeds, documents].
    """

    total: float
    layers: float | None
    scores: FloatArray


@dataclass(frozen=True, slots=True)
class Enough:
    """The least cost that keeps a share of the quality beyond doubt: of the layers, and of the FLOPs."""

    layers: float | None
    total: float | None
    reason: str


def enough(
    settings: Iterable[SettingScores],
    full: FloatArray,
    target: float = 0.95,
    *,
    chance: float = 0.0,
    confidence: float = 0.95,
    bounds: Bounds | None = None,
    clusters: Clusters | None = None,
) -> Enough:
    """Return the cheapest setting of one method that surely keeps a share of full depth's quality.

    Args:
        settings: all settings of the method that may be named: what is left out can't end the sequence.
        full: full depth's scores on the same documents.
        target: share to keep, above chance.
        chance: the mean score of guessing.
        confidence: of the one-sided bounds. Where the cheapest of several methods is to be named, 1 − 0.05 ÷ methods.
        bounds: least and greatest score there can be.
        clusters: the source of each document, where documents share one.
    """
    known = list(settings)
    points = [stats.Point(one.total, one.scores) for one in known]
    least = stats.compute_at(
        points, full, target, chance=chance, bounds=bounds, clusters=clusters, confidence=confidence
    )
    # Of several settings at one cost all kept the share: the one of most layers stands for them.
    there = [one.layers for one in known if one.total == least.cost and one.layers is not None]
    return Enough(max(there, default=None), least.cost, least.reason)
