"""The badge of a submission: how far it can be trusted, and who found that out, when, and on what."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dlbench.errors import RecordError
from dlbench.records.fields import Count, Key, Line, Name, Sha256, Trust
from dlbench.records.jsonl import JsonLine, Part, read_lines, write_lines
from dlbench.records.record import Hardware
from dlbench.system.hardware import hardware
from dlbench.system.versions import versions


class TimeCheck(Part):
    """What timing a row again gave, at one batch size.

    Attributes:
        batch_size: prompts decoded together.
        claimed, measured: full depth's decode time per token over the row's, in the submission and here.
        finding: why it was not judged, or how it differs; empty where it is as claimed.
        far_off: whether so much more is claimed that the row is not reproduced.
    """

    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    claimed: Annotated[float, Field(gt=0)]
    measured: Annotated[float, Field(gt=0)]
    finding: Line = ""
    far_off: bool = False


class RowCheck(Part):
    """What decoding a row's documents again gave.

    Attributes:
        key, method, task: of the row.
        documents: how many were decoded again.
        same: how many had the same text, routes, length and FLOPs.
        near_ties: how many others differ first where rounding may decide.
        differing: ids of the rest, and how they differ.
        times: by batch size; empty where times were not compared.
    """

    key: Key
    method: Name
    task: Name
    documents: Count
    same: Count
    near_ties: Count
    differing: Annotated[tuple[tuple[Name, Line], ...], Field(max_length=100_000)] = ()
    times: Annotated[tuple[TimeCheck, ...], Field(max_length=100)] = ()


class Badge(JsonLine):
    """The badge.

    Attributes:
        submission: seal of the manifest.
        trust: what may be published about the rows.
        who: who checked.
        when: in UTC.
        versions, hardware: what it was checked on.
        documents: how many of each row were decoded again; 0 where files alone were checked.
        nonce: a word that was mixed into the draw of the documents, chosen after the submission.
        rows: result by row; empty where files alone were checked.
    """

    max_line_bytes: ClassVar[int] = 1 << 26
    max_lines: ClassVar[int] = 1

    schema_: Literal["dlbench.badge/1"] = Field(default="dlbench.badge/1", alias="schema")
    submission: Sha256
    trust: Trust
    who: Line
    when: Line
    versions: Annotated[dict[Name, Line], Field(max_length=64)]
    hardware: Hardware
    documents: Count = 0
    nonce: Line = ""
    rows: Annotated[tuple[RowCheck, ...], Field(max_length=20_000)] = ()


def badge(seal: str, trust: Trust, who: str, device: str = "cpu", **more: Any) -> Badge:
    """Return a badge for what was done on this machine, now."""
    return Badge(
        submission=seal,
        trust=trust,
        who=who,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        hardware=Hardware(**hardware(device)),
        **more,
    )


def write_badge(path: Path, given: Badge) -> None:
    """Write a badge."""
    write_lines(path, [given])


def read_badge(path: Path) -> Badge:
    """Read a badge.

    Raises:
        RecordError: the file is none.
    """
    for one in read_lines(path, Badge):
        return one
    raise RecordError(f"{path}: no badge in it; is it what `dlbench verify` wrote?")
