"""Global state that a plugin's code changes and leaves so: it is put back, so that no other method runs under it."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


_KEPT: tuple[tuple[str, Callable[[], Any], Callable[[Any], Any]], ...] = (
    ("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    ("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
    ("torch's grad mode", torch.is_grad_enabled, torch.set_grad_enabled),
    (
        "torch's deterministic mode",
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    (
        "torch's precision of float32 products",
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    ("environment variables", lambda: dict(os.environ), _set_environment),
    ("the working folder", os.getcwd, os.chdir),
)
"""What is compared: its name, how to read it, and how to put it back."""
_GENERATORS: tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_rng_state, torch.set_rng_state),
)
"""Put back without a word: a draw is no fault, and the next method does not depend on it."""


@contextlib.contextmanager
def undone(tell: Callable[[str], None]) -> Iterator[None]:
    """Put back what changes inside.

    Args:
        tell: called once, with the names of what had changed, if anything had.
    """
    before = [read() for _, read, _ in _KEPT]
    states = [read() for read, _ in _GENERATORS]
    try:
        yield
    finally:
        changed = [(name, put, old) for (name, read, put), old in zip(_KEPT, before, strict=True) if read() != old]
        for _, put, old in changed:
            put(old)
        for (_, put), state in zip(_GENERATORS, states, strict=True):
            put(state)
        if changed:
            tell(", ".join(name for name, _, _ in changed))
