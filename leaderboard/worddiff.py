"""Which words two texts share, in order: the longest common subsequence, found on bits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

LONGEST = 3000
"""Words of a text beyond which nothing is compared: nobody reads such a difference, and time grows with the square."""
_WORD = re.compile(r"\s*\S+|\s+\Z")

Parts = list[tuple[bool, str]]
"""A text in pieces; True where the other text has the piece too."""


def word_diff(old: str, new: str) -> tuple[Parts, Parts]:
    """Return both texts in pieces that say whether the other has them.

    White space goes with the word after it, and does not make it another word. Texts of more than `LONGEST` words come
    back as one piece each, shared only where they are equal.
    """
    ours, theirs = _WORD.findall(old), _WORD.findall(new)
    if old == new or max(len(ours), len(theirs)) > LONGEST:
        return _whole(old, old == new), _whole(new, old == new)
    first, second = _shared([piece.strip() for piece in ours], [piece.strip() for piece in theirs])
    return _join(ours, first), _join(theirs, second)


def _whole(text: str, same: bool) -> Parts:
    return [(same, text)] if text else []


def _join(pieces: Sequence[str], kept: Sequence[bool]) -> Parts:
    joined = []
    for same, run in groupby(zip(kept, pieces, strict=True), key=lambda one: one[0]):
        joined.append((same, "".join(piece for _, piece in run)))
    return joined


def _shared(ours: Sequence[str], theirs: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Return, for every piece of both, whether it is part of one longest common subsequence.

    Row j of the usual table is kept as a number whose bit i is 0 where the value grows from column i to i + 1 (Hyyrö
    2004): a row costs a few operations on whole numbers instead of one step per cell.
    """
    places: dict[str, int] = defaultdict(int)
    for i, piece in enumerate(ours):
        places[piece] |= 1 << i
    everything = (1 << len(ours)) - 1
    row = everything
    rows = [row]
    for piece in theirs:
        hits = row & places.get(piece, 0)
        row = ((row + hits) | (row - hits)) & everything
        rows.append(row)
    first, second = [False] * len(ours), [False] * len(theirs)
    i, j = len(ours), len(theirs)
    while i and j:
        if rows[j] >> (i - 1) & 1:
            i -= 1
        elif not rows[j - 1] >> (i - 1) & 1:
            j -= 1
        else:
            i, j = i - 1, j - 1
            first[i] = second[j] = True
    return first, second
