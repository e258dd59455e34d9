"""Ranks among rows that compete: with the places that the data leave open, and letters for what they cannot part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dlbench import stats
from dlbench.leaderboard.views import Entry

RERUN = frozenset({"rerun", "reproduced"})


@dataclass(frozen=True, slots=True)
class Place:
    """A rank among rows that compete, with the ranks that the data leave open.

    Attributes:
        letters: rows that share one cannot be told apart.
        shade: whether its first group is an odd one, to colour by.
    """

    rank: int
    low: int
    high: int
    letters: str
    shade: bool


def competitors(entries: Iterable[Entry]) -> list[Entry]:
    """Return those that are ranked: what was rerun, if anything was; rows that were not never stand among them."""
    found = [entry for entry in entries if entry.role == "method" and entry.ok]
    rerun = [entry for entry in found if entry.trust in RERUN]
    return rerun or found


def ranked_places(table: stats.Table, chosen: Sequence[int] | None = None) -> list[Place]:
    """Return the places of some rows of a table, by default of all, among themselves.

    Which rows differ is taken from the whole table, so that letters and comparisons never disagree.
    """
    rows = list(range(len(table.means))) if chosen is None else list(chosen)
    means = table.means[rows]
    ranks = stats.rank_intervals(means, table.draws[rows], table.level)
    letters = stats.letters(stats.tie_groups(means, table.pairs.different[np.ix_(rows, rows)]), len(rows))
    shades: dict[str, bool] = {}
    for row in sorted(range(len(rows)), key=lambda row: (-means[row], letters[row])):
        shades.setdefault(letters[row], len(shades) % 2 == 0)
    alone = {letter for letter in letters if letters.count(letter) == 1 and len(letter) == 1}
    return [
        Place(rank.rank, rank.low, rank.high, "" if letter in alone else letter, shades[letter])
        for rank, letter in zip(ranks, letters, strict=True)
    ]
