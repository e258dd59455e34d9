"""Errors about unknown names, with the name that was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from dlbench.errors import DlbenchError


def unknown(kind: str, name: str, known: Iterable[str], see: str = "", *, where: str = "") -> DlbenchError:
    """Make the error for a name that is not among those known.

    Args:
        kind: what the name should have named, in the singular.
        name: the name as it was given.
        known: the names there are.
        see: where all of them can be seen; without it they are listed when there are at most twelve.
        where: what the name belongs to, or stood in, such as "of method 'calm'".
    """
    choices = sorted(set(known))
    close = get_close_matches(name, choices, n=3, cutoff=0.6)
    if close:
        advice = f"did you mean {' or '.join(close)}?"
    elif not choices:
        advice = "there is none"
    elif see or len(choices) > 12:
        advice = f"see {see}" if see else f"there are {len(choices)}"
    else:
        advice = f"there is {', '.join(choices)}"
    place = f" {where}" if where else ""
    return DlbenchError(f"unknown {kind} {name!r}{place}: {advice}")
