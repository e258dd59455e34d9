"""Ranks: with their intervals, and letters that rows share which cannot be told apart."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dlbench import stats
from dlbench.leaderboard.analysis.score_matrix import MOST_COMPARED
from dlbench.leaderboard.data.entries import BoardEntry, kind_of

RERUN = frozenset({"rerun", "reproduced"})


@dataclass(frozen=True, slots=True)
class RankedPlace:
    """A rank among the rows that are ranked together, with its interval.

    Attributes:
        letters: rows that share one cannot be told apart.
        low, high: the best and the worst rank that the data leave open.
        shade: whether its group of ties is shaded, so that neighbouring groups differ.
    """

    rank: int
    low: int
    high: int
    letters: str
    shade: bool


def competitors(entries: Iterable[BoardEntry]) -> list[BoardEntry]:
    """Return the entries that are ranked: methods, not controls; once one was rerun, only those that were rerun."""
    ok = [entry for entry in entries if kind_of(entry) == "method" and entry.ok]
    rerun = [entry for entry in ok if entry.trust in RERUN]
    return rerun or ok


def ranked_places(table: stats.Table) -> list[RankedPlace]:
    """Return the rank of every row of a table; without letters where there are too many rows for pairwise tests."""
    if len(table.means) > MOST_COMPARED:
        return [RankedPlace(one.rank, one.low, one.high, "", False) for one in table.ranks]
    groups = table.groups
    letters = stats.letters(groups, len(table.means))
    tied = {row for group in groups if len(group) > 1 for row in group}
    shades: dict[str, bool] = {}
    for row in sorted(tied, key=lambda row: (-table.means[row], letters[row])):
        shades.setdefault(letters[row], len(shades) % 2 == 0)
    return [
        RankedPlace(
            rank.rank, rank.low, rank.high, letters[row] if row in tied else "", row in tied and shades[letters[row]]
        )
        for row, rank in enumerate(table.ranks)
    ]
