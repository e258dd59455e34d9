"""How long the benchmark of its own models takes, by the patience of its races."""

from __future__ import annotations

from collections.abc import Sequence

from dlbench.bench.clock import LEAST
from dlbench.bench.decode import MIXED
from dlbench.bench.models import Sizes

PROCESS_S = 15
"""Seconds of a process that imports everything, makes a model and runs it once."""


def expected(sizes: Sizes, parts: Sequence[str]) -> str:
    """Say how long these parts take where LEAST rounds of every race are done before its patience ends."""
    races = {
        "decode": len(MIXED),
        "wide": len({*MIXED, *sizes.wide_batches}),
        "requests": len(sizes.request_batches),
        "sweep": 1,
    }
    processes = {"memory": 2 * sizes.memory_rounds, "start": 3 * sizes.start_rounds}  # start also loads models
    seconds = sum(sizes.patience * races.get(part, 0) + PROCESS_S * processes.get(part, 0) for part in parts)
    return f"about {minutes(seconds)}; longer on a slow or busy machine, since every comparison has {LEAST} rounds"


def minutes(seconds: float) -> str:
    """Return a duration for people."""
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
