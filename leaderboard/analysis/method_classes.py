"""Classes of methods that claims are made about, and which of its members speaks for a class.

A claim about a class is a claim about its best member, and that member must not be chosen by the scores that the claim
is about: the best of several noisy scores is high by luck. So it is chosen on documents of the tune part of the fit
split, which are not scored; records hold the mean score there (`tune`). Where a class has several members in a track
and some have none, nothing is claimed of the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlbench.leaderboard.data.paired_scores import ScoredEntry

CLASSES = {
    "skipping": ("static_skip", "unified_skip", "short_gpt", "sleb"),
    "exiting": ("static_exit", "calm", "entropy_exit", "mue", "sorted_exit"),
}
"""Class → its methods: fixed sets of whole layers, and rules after which a token runs no further layer."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """The member that speaks for a class at a budget.

    Attributes:
        among: labels of all members that ran there, sorted.
        documents: of the tune part that it was chosen on; 0 for a class of one member.
    """

    entry: ScoredEntry
    among: tuple[str, ...]
    documents: int

    @property
    def chosen(self) -> str:
        """Say by what it speaks for its class."""
        if len(self.among) < 2:
            return f"{self.among[0]} alone"
        return f"the best of {listed(self.among)} on {self.documents} documents of the tune part"


def listed(names: Sequence[str]) -> str:
    """Join names as English does: "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def class_of(method: str) -> str | None:
    """Return the class of a method, if it is of one."""
    return next((name for name, members in CLASSES.items() if method in members), None)


def speaker(members: Sequence[ScoredEntry]) -> Speaker | None:
    """Return the member that scores best on the tune part; None where there is none, or that is not known of all.

    Args:
        members: of one class, at one budget on one backbone.
    """
    among = tuple(sorted(entry.row.label for entry in members))
    if len(members) < 2:
        return Speaker(members[0], among, 0) if members else None
    scored: list[tuple[float, str, ScoredEntry]] = []
    counts: set[int] = set()
    for entry in members:
        tune = [row.record.tune for row in entry.rows if row.record.tune is not None]
        if len(tune) < len(entry.rows):
            return None
        scored.append((-sum(one.mean for one in tune) / len(tune), entry.row.label, entry))
        counts |= {one.n for one in tune}
    best = min(scored, key=lambda one: one[:2])[2]
    return Speaker(best, among, min(counts))
