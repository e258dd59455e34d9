"""What a layer computes for rows that skip it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extra:
    """What a layer computed for each row that skips it, beside what the row needs."""

    linear: int
    """FLOPs of products that do not depend on the context; those of keys and values are among them."""
    attended: bool
    """Whether its attention was computed too."""
