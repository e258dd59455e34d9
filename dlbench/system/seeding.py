"""Python's `random` and numpy's, the same wherever a task draws from them.

Some tasks of lm-eval shuffle answers as they are read; others guess, or resample, as they score.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def same_draws(seed: int = 0) -> Iterator[None]:
    """Start both generators anew inside, and go on outside as if nothing had been drawn."""
    import numpy as np

    before, arrays = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(arrays)
