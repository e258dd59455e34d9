"""Python's `random`, the same wherever a task draws from it: some tasks of lm-eval shuffle answers as they are read."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def same_draws() -> Iterator[None]:
    """Start `random` anew inside, and go on outside as if nothing had been drawn."""
    before = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)
