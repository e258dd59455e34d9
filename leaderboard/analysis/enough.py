"""How much compute is enough: the one rule by which tables and sentences name the setting that keeps a share of full.

The axis is the total FLOPs: a method's settings are tested from the dearest down, by their share of full depth's total
FLOPs, which is what a board ranks on; see `dlbench.stats.compute_at`. The layer share that is shown is that of the
setting so found. It is never looked for by itself: where fewer layers cost more FLOPs (of a router, or of keys and
values that have to be made after all), the least layers would not be the least compute.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dlbench import stats
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, series
from dlbench.stats.intervals import Bounds, Clusters
from dlbench.stats.resample import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SettingScores:
    """A setting of a method that ran: what it cost, and what it scored.

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
    """The cheapest setting that surely keeps a share of the quality.

    Attributes:
        layers: its realised layer share.
        total: its realised share of full depth's total FLOPs, by which it was chosen.
        reason: why there is none; empty where there is one.
    """

    layers: float | None
    total: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class BestEnough:
    """The method that surely keeps a share of the quality at the fewest FLOPs, all methods tested together.

    Attributes:
        label: None where no method does.
        enough: its cheapest setting.
    """

    label: str | None
    enough: Enough


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
    """Return the cheapest of a method's settings, by total FLOPs, that surely keeps a share of full depth's quality.

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


def enough_of(
    matrix: ScoreMatrix, entries: Iterable[BoardEntry], target: float = 0.95, confidence: float = 0.95
) -> Enough:
    """Return the cheapest setting of one method of a view that surely keeps a share of full depth's quality.

    Args:
        matrix: the view's scores, full depth's among them.
        entries: all settings of the method, those that missed their budget too: they ran, at what they cost.
        target: share to keep, above chance.
        confidence: of the one-sided bounds.
    """
    assert matrix.full is not None
    settings = [
        SettingScores(entry.costs["total"], entry.costs.get("layers"), matrix.rows[entry.id])
        for entry in entries
        if entry.id in matrix.rows and "total" in entry.costs
    ]
    if not settings:
        return Enough(None, None, "its documents are not published")
    limits = matrix.limits([setting.scores for setting in settings] + [matrix.full[None]])
    return enough(settings, matrix.full, target, confidence=confidence, bounds=limits, clusters=matrix.clusters)


def best_enough(matrix: ScoreMatrix, target: float = 0.95) -> BestEnough:
    """Return the method, no control, that surely keeps a share of full depth's quality at the fewest FLOPs.

    It is picked among all methods of the view, so each is tested at a confidence that is raised by their number
    (Bonferroni). A table of methods one by one tests each alone, and so may name a setting that is not named here.
    """
    methods = series(entry for entry in matrix.entries if kind_of(entry) == "method")
    confidence = 1 - 0.05 / max(1, len(methods))
    least = {label: enough_of(matrix, entries, target, confidence) for label, entries in methods.items()}
    costs = [(one.total, label) for label, one in least.items() if one.total is not None]
    if not costs:
        return BestEnough(None, Enough(None, None, "not reached"))
    _, label = min(costs)
    return BestEnough(label, least[label])


@dataclass(frozen=True, slots=True)
class EnoughSetting:
    """The setting of any method that surely keeps 95 % of full depth's quality at the least cost on one axis.

    Attributes:
        entry: None where there is none.
        reason: why; empty where there is one.
    """

    entry: BoardEntry | None = None
    reason: str = "its documents are not published"


def enough_setting(matrix: ScoreMatrix, axis: str, target: float = 0.95) -> EnoughSetting:
    """Return the cheapest setting on an axis that surely keeps a share of full depth's quality, of any method.

    The rule is that of `best_enough`, by the cost of the axis in place of the total FLOPs.
    """
    assert matrix.full is not None
    known = [entry for entry in matrix.entries if kind_of(entry) == "method" and axis in entry.costs]
    methods = series(known)
    confidence = 1 - 0.05 / max(1, len(methods))
    reached, reasons = [], []
    for label, entries in methods.items():
        settings = [SettingScores(one.costs[axis], one.costs.get("layers"), matrix.rows[one.id]) for one in entries]
        limits = matrix.limits([one.scores for one in settings] + [matrix.full[None]])
        least = enough(settings, matrix.full, target, confidence=confidence, bounds=limits, clusters=matrix.clusters)
        reasons.append(least.reason)
        if least.total is not None:
            there = [one for one in entries if one.costs[axis] == least.total]
            reached.append((least.total, label, max(there, key=lambda one: (one.costs.get("layers", 0.0), one.id))))
    if not reached:
        return EnoughSetting(None, next((one for one in reasons if one != "not reached"), "not reached"))
    return EnoughSetting(min(reached, key=lambda one: one[:2])[2], "")
