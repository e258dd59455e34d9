"""Which words two texts share, in order: the longest common subsequence, computed on bits."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache

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
    (ours, places), theirs = _known(old), _WORD.findall(new)
    if old == new or max(len(ours), len(theirs)) > LONGEST:
        return _whole(old, old == new), _whole(new, old == new)
    first, second = _shared(len(ours), places, [piece.strip() for piece in theirs])
    return _join(ours, first), _join(theirs, second)


@lru_cache(1024)  # full depth's text stands beside every row's
def _known(text: str) -> tuple[list[str], Mapping[str, int]]:
    """Return the pieces of a text, and for each word a number whose bits are its places among them."""
    pieces = _WORD.findall(text)
    places: dict[str, int] = defaultdict(int)
    if len(pieces) <= LONGEST:
        for place, piece in enumerate(pieces):
            places[piece.strip()] |= 1 << place
    return pieces, places


def _whole(text: str, same: bool) -> Parts:
    return [(same, text)] if text else []


def _join(pieces: Sequence[str], kept: Sequence[bool]) -> Parts:
    joined = []
    start = 0
    for end in range(1, len(pieces) + 1):
        if end == len(pieces) or kept[end] != kept[start]:
            joined.append((kept[start], "".join(pieces[start:end])))
            start = end
    return joined


def _shared(ours: int, places: Mapping[str, int], theirs: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """Return, for every piece of both, whether it is part of one longest common subsequence.

    Row j of the usual table is kept as a number whose bit i is 0 where the value grows from column i to i + 1 (Hyyrö
    2004): a row costs a few operations on whole numbers instead of one step per cell.
    """
    everything = (1 << ours) - 1
    row = everything
    rows = [row]
    for piece in theirs:
        hits = row & places.get(piece, 0)
        row = ((row + hits) | (row - hits)) & everything
        rows.append(row)
    first, second = [False] * ours, [False] * len(theirs)
    i, j = ours, len(theirs)
    while i and j:
        if rows[j] >> (i - 1) & 1:
            i -= 1
        elif not rows[j - 1] >> (i - 1) & 1:
            j -= 1
        else:
            i, j = i - 1, j - 1
            first[i] = second[j] = True
    return first, second
