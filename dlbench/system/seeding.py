"""Fixed seeds for Python's and numpy's global random generators while code of a task runs.

Some tasks of lm-eval shuffle answers when they are read; others guess, or resample, when they score.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def same_draws(seed: int = 0) -> Iterator[None]:
    """Seed both generators inside; afterwards restore their states, as if nothing had been drawn."""
    import numpy as np

    before, arrays = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(arrays)
