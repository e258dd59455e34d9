"""Types of the fields of records: what a name, a hash, a share or a route may be."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints


def _printable(text: str) -> str:
    # Control and bidirectional characters can make a name look like another one, in a terminal and on a page.
    if not text.isprintable():
        raise ValueError("holds control or invisible characters")
    return text


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("the lower bound is above the upper one")
    return bounds


def _a_day(text: str) -> str:
    return datetime.date.fromisoformat(text).isoformat()


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Line = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
Output = Annotated[str, StringConstraints(max_length=1_000_000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,64}$")]
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(_a_day)]
"""Such as 2026-11-30."""
Count = Annotated[int, Field(ge=0, le=10**24)]
Share = Annotated[float, Field(ge=0, le=1000)]
"""A share of full depth, which is 1; more is possible (an exit head that is checked, a layer that runs twice, longer
outputs)."""
Milliseconds = Annotated[float, Field(ge=0)]
Bounds = Annotated[tuple[float, float], AfterValidator(_ordered)]
Budget = Annotated[float, Field(gt=0, le=1)]
Scalar = bool | int | float | Line | None
Params = Annotated[
    dict[Name, Scalar | Annotated[tuple[Scalar, ...], Field(max_length=4096)]],
    Field(max_length=64),
]
Extra = Annotated[dict[Name, float], Field(max_length=64)]
Route = Annotated[str, StringConstraints(pattern=r"^[0-3]{1,10000}$")]
"""What one token ran, a digit per layer: 0 nothing, 1 attention only, 2 feed-forward only, 3 the whole layer."""
Trust = Literal["self-reported", "validated", "rerun", "reproduced"]
"""Who vouches for a row: its author alone; a maintainer who checked the files; a maintainer who ran it again with the
same result; somebody else who did. Set by the publisher of a record, not by its author."""
