"""The official protocol: what every official run has in common."""

from __future__ import annotations

from collections.abc import Collection

from dlbench.data import suites
from dlbench.leaderboard.data.tracks import CONTROLS as _CONTROLS

CONTROLS = tuple(sorted(_CONTROLS))
"""Baselines that decide without looking at their input, which rows of methods stand beside."""
BUDGETS = 3
"""Fewest budgets; which they are, `dlbench.running.budgets` says, and all methods have the same."""
BATCHES = (1, 16)
"""Batch sizes that are timed."""
FIT_SEEDS = 3
"""Fits of each method that learns."""
SEED = 0


def missing_tasks(tasks: Collection[str]) -> list[str]:
    """Return the tasks that are missing for these tasks to be whole suites; a task of no suite is named too."""
    given, members = set(tasks), [set(one) for one in suites.suites().values()]
    covered = set().union(*(one for one in members if one <= given))
    missing = set()
    for name in given - covered:
        lacking = [one - given for one in members if name in one]
        missing |= min(lacking, key=lambda one: (len(one), sorted(one)), default={name})
    return sorted(missing)
