"""Batches of prompts of similar length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dlbench.engine import Request
from dlbench.prompting.tokenize import Prompted


def waves(prompted: Sequence[Prompted], size: int, processes: int = 1) -> list[list[Prompted]]:
    """Group prompts of similar length, which need little padding.

    Args:
        prompted: in any order.
        size: most prompts of a group.
        processes: processes that take turns; the groups of one round are alike, so that no process waits for another.
    """
    ordered = sorted(prompted, key=_length)
    rounds = (ordered[i : i + size * processes] for i in range(0, len(ordered), size * processes))
    dealt = (group[i::processes] for group in rounds for i in range(processes))
    return [batch for batch in dealt if batch]


def typical(prompted: Sequence[Prompted], size: int) -> list[Request]:
    """Return requests of medium length, to be timed; repeated under other ids where there are too few.

    Args:
        prompted: in any order.
        size: how many.
    """
    ordered = sorted(prompted, key=_length)
    start = max(0, (len(ordered) - size) // 2)
    chosen = []
    for i in range(size):
        again, index = divmod(i, len(ordered))
        request = ordered[start + index].request
        # random decisions depend on the id
        chosen.append(replace(request, id=f"{request.id} again {again}") if again else request)
    return chosen


def _length(prompted: Prompted) -> tuple[int, int]:
    return len(prompted.request.ids), prompted.document.index
