"""Types of the fields of records: what a name, a hash, a share or a route may be."""

from __future__ import annotations

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


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Line = Annotated[str, StringConstraints(max_length=500), AfterValidator(_printable)]
Output = Annotated[str, StringConstraints(max_length=1_000_000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,64}$")]
Count = Annotated[int, Field(ge=0, le=10**24)]
Share = Annotated[float, Field(ge=0, le=1000)]
"""1 is full depth; more is possible (a checked exit head, a layer run twice, longer outputs)."""
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
"""What one token did, a digit per layer: 0 passed by, 1 attention only, 2 feed-forward only, 3 ran."""
Trust = Literal["self-reported", "validated", "rerun", "reproduced"]
"""Who stands for a row. Its author alone; a maintainer who checked the files; a maintainer who ran it again and got the
same; somebody else who did. It is set by who publishes a record, not by who sends it in."""
