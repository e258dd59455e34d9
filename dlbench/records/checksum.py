"""Checksums of samples: each line holds one over its content and its key, so that no other content is believed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from dlbench.records.jsonl import parse_line, read_lines
from dlbench.records.sample import Sample

_CHECK = re.compile(rb'"check":"([0-9a-f]{32})",')  # inside a text the quotes would follow a backslash


def sealed_line(key: str, sample: Sample) -> str:
    """Format a sample as one line of JSON with its checksum, without a line end.

    Args:
        key: the content key that it belongs to.
        sample: its own checksum is replaced.
    """
    content = sample.model_dump(by_alias=True)
    content.pop("check", None)
    content["check"] = _checksum(key, _json(content).encode())
    return _json(content)


def parse_sealed(key: str, line: bytes) -> Sample:
    """Check one line, and its checksum where it has one: lines of earlier releases have none.

    Raises:
        ValueError: it is no sample, or not the one that was written under this key.
    """
    sample = parse_line(line.removesuffix(b"\n"), Sample)
    if sample.check is not None:
        whole = _CHECK.sub(b"", line.removesuffix(b"\n"), count=1)
        if _checksum(key, whole) != sample.check:
            raise ValueError("check: the line was changed, or belongs to another key")
    return sample.model_copy(update={"check": None})


def read_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a key's file `KEY.jsonl`, one line in memory at a time, each with its checksum checked.

    Raises:
        RecordError: the file cannot be read, or a line is no sample, was changed, or belongs to another key.
    """
    return read_lines(path, Sample, partial(parse_sealed, path.stem))


def _json(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _checksum(key: str, line: bytes) -> str:
    return hashlib.sha256(key.encode() + b"\n" + line).hexdigest()[:32]
