"""The gap closed: how far each method gets from random routing to the honest oracle, at its own realised layer share.

Honest is the oracle that is scored on references that it did not choose by (`oracle_cross`). Random routing stands at
the method's layer share on the curve of its own settings, and so does the oracle; the end of a curve still stands for a
share that lies at most `SLACK` beyond it, as wherever the board compares with a control. Of the variants of random
routing it is the one per token, where it ran: a gap has one lower end, and the variant that did best on the test
documents would be high by luck. Only rows that met their budget take part, as in charts and areas, and both ends ran
under the KV policy of the method, where they have use for one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dlbench import stats
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, series
from dlbench.leaderboard.data.paired_scores import SLACK, policy_of, same_policy, usual
from dlbench.stats.resample import FloatArray

HALF = 0.5
"""The budget at which sentences name who closes most of the gap."""


@dataclass(frozen=True, slots=True)
class BestGap:
    """The method that closes most of the gap near half of the layers.

    Attributes:
        closed: its estimate is that of the method's own row; its interval holds for all methods together, since the
            best was picked among them (Bonferroni).
    """

    label: str
    closed: stats.Interval


@dataclass(frozen=True, slots=True)
class _Ends:
    """The curves of one KV policy: random routing, by the label of the variant, and the honest oracle."""

    control: str | None
    random: stats.Curve | None
    oracle: stats.Curve | None


class GapCurves:
    """The two ends of the gap over the realised layer share: random routing below, the honest oracle above."""

    def __init__(self, matrix: ScoreMatrix) -> None:
        self._matrix = matrix
        there = [entry for entry in matrix.entries if entry.ok and "layers" in entry.costs]
        self._random = [entry for entry in there if entry.method == "random_skip"]
        self._oracle = [entry for entry in there if entry.method == "oracle_cross"]
        self._by_policy: dict[str, _Ends] = {}

    def closed(self, entry: BoardEntry, level: float = stats.LEVEL) -> stats.Interval | None:
        """Return the share of the gap that an entry closes.

        Args:
            entry: of a method or a control.
            level: coverage of the interval.

        Returns:
            None where the entry missed its budget or had none, where one of the references did not run at its layer
            share, and where the interval of the gap itself is not above 0.
        """
        rows = self._rows(entry)
        if rows is None:
            return None
        limits = self._matrix.limits(rows)
        return stats.gap_closed(*rows, bounds=limits, clusters=self._matrix.clusters, level=level)

    def meets(self, entry: BoardEntry) -> bool:
        """Return whether both references ran at the entry's layer share."""
        return self._rows(entry) is not None

    def _rows(self, entry: BoardEntry) -> list[FloatArray] | None:
        """Return the scores of the entry, of random routing and of the oracle, each [fit seeds, documents]."""
        share = entry.costs.get("layers")
        if share is None or entry.budget is None or not entry.ok or entry.id not in self._matrix.rows:
            return None
        ends = self._ends(entry)
        if ends.random is None or ends.oracle is None or entry.label == ends.control:
            return None
        low, high = (curve.at(share, slack=SLACK) for curve in (ends.random, ends.oracle))
        if low is None or high is None:
            return None
        return [self._matrix.rows[entry.id], np.atleast_2d(low.scores), np.atleast_2d(high.scores)]

    def _ends(self, entry: BoardEntry) -> _Ends:
        """Return the two curves that an entry is compared with."""
        policy = policy_of(entry.first)
        if policy not in self._by_policy:
            variants = series(one for one in self._random if same_policy(one.first, entry.first))
            control = usual(variants)
            self._by_policy[policy] = _Ends(
                control=control,
                random=self._curve(variants.get(control or "", ())),
                oracle=self._curve(one for one in self._oracle if same_policy(one.first, entry.first)),
            )
        return self._by_policy[policy]

    def _curve(self, entries: Iterable[BoardEntry]) -> stats.Curve | None:
        points = [self._matrix.point(entry, "layers") for entry in entries]
        return stats.Curve(points) if points else None


def gaps(curves: GapCurves, entries: Sequence[BoardEntry]) -> dict[float, stats.Interval]:
    """Return the share of the gap that a method closes, by budget, as far as it can be said."""
    return {
        entry.budget: closed
        for entry in entries
        if entry.budget is not None and (closed := curves.closed(entry)) is not None
    }


def best_gap(matrix: ScoreMatrix) -> BestGap | None:
    """Return which method, no control, closes most of the gap near half of the layers; None where none can be named."""
    curves = GapCurves(matrix)
    candidates = [
        entry
        for entry in matrix.entries
        if kind_of(entry) == "method" and abs((entry.budget or 0.0) - HALF) <= SLACK and curves.meets(entry)
    ]
    level = 1 - (1 - stats.LEVEL) / max(1, len(candidates))
    told = [(entry, closed) for entry in candidates if (closed := curves.closed(entry, level)) is not None]
    if not told:
        return None
    entry, closed = max(told, key=lambda one: one[1].estimate)
    return BestGap(entry.label, closed)
