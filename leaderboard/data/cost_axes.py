"""Cost axes: the costs that charts can show and tables can sort by, and their values for an entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean

from dlbench.leaderboard.data.tracks import Row
from dlbench.records.schema import Compute

Rows = Sequence[Sequence[Row]]
"""Rows of an entry: by task; several of one task are repeats under other seeds."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A cost that charts can show and tables can sort by.

    Attributes:
        key: in URLs and data.
        short: for a picker.
        title: for an axis of a chart.
        share: a share of full depth; milliseconds otherwise.
    """

    key: str
    short: str
    title: str
    share: bool


@dataclass(frozen=True, slots=True)
class ShareAxis:
    """An axis whose values stand in the records: a share of full depth."""

    axis: Axis
    of: Callable[[Compute], float | None]


SHARES = (
    ShareAxis(
        Axis("total", "FLOPs, total", "FLOPs of prompt and output, share of full depth", True),
        lambda compute: compute.flop_share_total,
    ),
    ShareAxis(
        Axis("decode", "FLOPs, decoding", "FLOPs of decoding, share of full depth", True),
        lambda compute: compute.flop_share_decode,
    ),
    ShareAxis(
        Axis("layers", "Layers", "executed layers, share of all", True),
        lambda compute: compute.layer_share,
    ),
)
"""Every axis that needs no measured times, the default first."""


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Times at one batch size; `speedup` is full's time per token over this one's, in the same process."""

    ms_per_token: float
    ms_per_document: float
    speedup: float | None


def axes(batches: Iterable[int]) -> list[Axis]:
    """Return all axes that a board with times at these batch sizes may have."""
    every = [share.axis for share in SHARES]
    for batch in batches:
        every.append(Axis(f"token{batch}", f"ms/token, batch {batch}", f"ms per token, batch {batch}", False))
        every.append(Axis(f"document{batch}", f"ms/document, batch {batch}", f"ms per document, batch {batch}", False))
    return every


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean; None where a value is missing."""
    known = list(values)
    return fmean([one for one in known if one is not None]) if known and None not in known else None


def _geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; of a single value the value itself, without rounding."""
    return values[0] if len(values) == 1 else geometric_mean(values)


def costs_of(rows: Rows) -> dict[str, float]:
    """Return the costs that all rows have, by the key of their axis: means over seeds, then over tasks."""
    costs = {
        share.axis.key: mean_of(
            mean_of(share.of(c) if (c := row.record.compute) else None for row in same) for same in rows
        )
        for share in SHARES
    }
    for batch, times in times_of(rows).items():
        costs[f"token{batch}"], costs[f"document{batch}"] = times.ms_per_token, times.ms_per_document
    return {key: value for key, value in costs.items() if value is not None}


def times_of(rows: Rows) -> dict[int, BatchTimes]:
    """Return times by batch size, where every row has them: means over rows, of speed-ups the geometric mean."""
    flat = [row for same in rows for row in same]
    by_batch = {}
    for batch in sorted(set.intersection(*(set(row.timings) for row in flat))):
        timings = [row.timings[batch] for row in flat]
        speedups = [one.speedup for one in timings if one.speedup is not None]
        by_batch[batch] = BatchTimes(
            ms_per_token=fmean(one.decode_ms_per_token for one in timings),
            ms_per_document=fmean(one.ms_per_document for one in timings),
            speedup=_geometric_mean(speedups) if len(speedups) == len(timings) else None,
        )
    return by_batch
