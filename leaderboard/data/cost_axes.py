"""Cost axes: the costs that charts can show and tables can sort by, and their values for an entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean

from dlbench.leaderboard.data.tracks import Row
from dlbench.records.schema import Compute, Timing

Rows = Sequence[Sequence[Row]]
"""Rows of an entry: by task; several of one task are repeats under other seeds."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A cost that charts can show and tables can sort by, as a share of full depth's.

    Attributes:
        key: in URLs and data.
        short: for a picker.
        title: for an axis of a chart.
        of: what it is a share of, for hints.
    """

    key: str
    short: str
    title: str
    of: str


@dataclass(frozen=True, slots=True)
class RecordedAxis:
    """An axis whose values stand in the records."""

    axis: Axis
    value: Callable[[Compute], float | None]


RECORDED = (
    RecordedAxis(
        Axis("layers", "Layers", "executed layers, share of all", "the layers"),
        lambda compute: compute.layer_share,
    ),
    RecordedAxis(
        Axis("decode", "Decode FLOPs", "FLOPs of decoding, share of full depth", "full’s decoding FLOPs"),
        lambda compute: compute.flop_share_decode,
    ),
    RecordedAxis(
        Axis("total", "Total FLOPs", "FLOPs of prompt and output, share of full depth", "full’s total FLOPs"),
        lambda compute: compute.flop_share_total,
    ),
)
"""Every axis that needs no measured times, the default first."""


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Times at one batch size.

    Attributes:
        ms_per_token: of decoding, the median of the setting's own runs.
        ms_per_document: with the prompt.
        share: time per token as a share of full depth's, each run beside one of full depth in the same process; None
            where that was not measured.
        spread: interquartile range of that share over its runs, ÷ its median; None where it is not known.
        document_share: time per document as a share of full depth's, by `share`.
        memory_share: memory of a GPU at its highest as a share of full depth's; None where it was not measured. A
            process on a CPU keeps what earlier rows have freed, so that its memory tells rows apart too little.
        energy_share: energy per token as a share of full depth's; None likewise.
    """

    ms_per_token: float
    ms_per_document: float
    share: float | None
    spread: float | None
    document_share: float | None
    memory_share: float | None = None
    energy_share: float | None = None

    @property
    def speedup(self) -> float | None:
        """Full depth's time per token over this one's."""
        return None if self.share is None else 1 / self.share


def axes(batches: Iterable[int]) -> list[Axis]:
    """Return all axes that a board with times at these batch sizes may have."""
    every = [recorded.axis for recorded in RECORDED]
    for batch in batches:
        for key, what in (("token", "token"), ("document", "document")):
            title = f"time per {what} at batch {batch}, share of full depth"
            of = f"full’s time per {what} at batch {batch}"
            every.append(Axis(f"{key}{batch}", f"Time/{what}, b{batch}", title, of))
        memory, energy = f"memory at its highest, batch {batch}", f"energy per token at batch {batch}"
        every.append(Axis(f"memory{batch}", f"Memory, b{batch}", f"{memory}, share of full depth", f"full’s {memory}"))
        every.append(Axis(f"energy{batch}", f"Energy, b{batch}", f"{energy}, share of full depth", f"full’s {energy}"))
    return every


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean; None where a value is missing."""
    known = list(values)
    return fmean([one for one in known if one is not None]) if known and None not in known else None


def costs_of(rows: Rows, times: Mapping[int, BatchTimes]) -> dict[str, float]:
    """Return the costs that all rows have, by the key of their axis: means over seeds, then over tasks.

    Args:
        rows: of the entry.
        times: of the entry, by batch size.
    """
    costs = {
        recorded.axis.key: mean_of(
            mean_of(recorded.value(c) if (c := row.record.compute) else None for row in same) for same in rows
        )
        for recorded in RECORDED
    }
    for batch, there in times.items():
        costs[f"token{batch}"], costs[f"document{batch}"] = there.share, there.document_share
        costs[f"memory{batch}"], costs[f"energy{batch}"] = there.memory_share, there.energy_share
    return {key: value for key, value in costs.items() if value is not None}


def times_of(rows: Rows, fulls: Sequence[Row | None]) -> dict[int, BatchTimes]:
    """Return times by batch size, where every row has them: means over rows, of shares the geometric mean.

    Args:
        rows: of the entry.
        fulls: by task, full depth's row.
    """
    flat = [row for same in rows for row in same]
    full_rows = [full for same, full in zip(rows, fulls, strict=True) for _ in same]
    by_batch = {}
    for batch in sorted(set.intersection(*(set(row.timings) for row in flat))):
        timings = [row.timings[batch] for row in flat]
        fulls_there = [None if full is None else full.timings.get(batch) for full in full_rows]
        spreads = [one.speedup_spread for one in timings]
        by_batch[batch] = BatchTimes(
            ms_per_token=fmean(one.decode_ms_per_token for one in timings),
            ms_per_document=fmean(one.ms_per_document for one in timings),
            share=_geometric_mean([1 / one.speedup if one.speedup else None for one in timings]),
            spread=mean_of(spreads),
            document_share=_geometric_mean(list(map(_document_share, timings, fulls_there))),
            memory_share=_share_of(_gpu_bytes, timings, fulls_there),
            energy_share=_share_of(lambda timing: timing.joules_per_token, timings, fulls_there),
        )
    return by_batch


def _gpu_bytes(timing: Timing) -> int | None:
    return None if timing.device == "cpu" else timing.peak_bytes


def _share_of(
    value: Callable[[Timing], float | None], timings: Sequence[Timing], fulls: Sequence[Timing | None]
) -> float | None:
    """Return the geometric mean of a value as a share of full depth's; None where any of them is missing."""
    shares = []
    for timing, full in zip(timings, fulls, strict=True):
        own, of_full = value(timing), None if full is None else value(full)
        shares.append(own / of_full if own and of_full else None)
    return _geometric_mean(shares)


def _document_share(timing: Timing, full: Timing | None) -> float | None:
    """Return the time per document as a share of full depth's, decoding by the paired speed-up."""
    if full is None or timing.speedup is None:
        return None
    forwards = (timing.ms_per_document - timing.prefill_ms_per_document) / timing.decode_ms_per_token
    decoding = forwards * full.decode_ms_per_token / timing.speedup
    return (decoding + timing.prefill_ms_per_document) / full.ms_per_document


def _geometric_mean(values: Sequence[float | None]) -> float | None:
    """Return the geometric mean, of a single value the value itself; None where one is missing or not above 0."""
    known = [value for value in values if value is not None and value > 0]
    if len(known) < len(values):
        return None
    return known[0] if len(known) == 1 else geometric_mean(known)
