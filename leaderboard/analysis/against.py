"""A row compared with another, or with all variants of a control: the difference, its p value, and the verdict.

A control such as random routing has variants, per token and per sequence. To compare with the variant that does best on
the test documents would be unfair to the row, since the best of several draws is high by luck; and a comparison with
one variant says nothing of the others. So a row is ahead of a control only if it is ahead of each of its
variants, and behind only if it is behind each: an intersection–union test (Berger, Technometrics 24, 1982), whose p
value is the greatest of the variants', needs no correction for their number, and errs in at most 5 % of the cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlbench.leaderboard.data.paired_scores import ScoredEntry
from dlbench.stats import Interval, paired_difference, permutation_p
from dlbench.stats.intervals import Clusters

SIGNIFICANCE = 0.05


def against(
    entry: ScoredEntry, others: Sequence[ScoredEntry], *, clusters: Clusters | None = None
) -> tuple[Interval, float] | None:
    """Return entry minus what it is compared with, and the p value of the paired permutation test.

    Args:
        entry: a row.
        others: one row, or all variants of a control; over the same documents.
        clusters: the source of each document, where documents share one.

    Returns:
        Where the entry is ahead of every variant as measured, or behind every one, the difference that is least in its
        favour, or least against it; else an interval that holds those of all variants, and a p value of 1. None where
        scores are missing or of other documents.
    """
    compared: list[tuple[Interval, float]] = []
    for other in others:
        if entry.scores is None or other.scores is None or entry.ids != other.ids:
            return None
        p = permutation_p(entry.scores, other.scores, clusters=clusters)
        compared.append((paired_difference(entry.scores, other.scores, clusters=clusters), p))
    if len(compared) < 2:
        return compared[0] if compared else None
    differences = [difference for difference, _ in compared]
    greatest = max(p for _, p in compared)
    if all(one.estimate > 0 for one in differences):
        return min(differences, key=lambda one: one.low), greatest
    if all(one.estimate < 0 for one in differences):
        return max(differences, key=lambda one: one.high), greatest
    middle = min(differences, key=lambda one: abs(one.estimate))
    low, high = min(one.low for one in differences), max(one.high for one in differences)
    return replace(middle, low=low, high=high), 1.0


def verdict(difference: Interval, p: float) -> int:
    """Return 1 where the first is better, −1 where the other is, 0 where the interval and the test don't both say so.

    Args:
        difference: first minus other.
        p: corrected, where several comparisons are made together.
    """
    if p >= SIGNIFICANCE or not difference.excludes_zero:
        return 0
    return 1 if difference.estimate > 0 else -1
