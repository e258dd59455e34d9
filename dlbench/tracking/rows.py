"""Records as flat rows, the same in every tracker; columns are named as in the board's CSV."""

from __future__ import annotations

from collections.abc import Iterable

from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.records.schema import Record, Timing
from dlbench.tracking.tracker import Row

FIGURES = ("retained", "quality", "layer_share", "flop_share_decode", "flop_share_total")
"""Figures that are also logged as numbers of their own, with the speed-ups."""


def rows_of(records: Iterable[Record], times: Iterable[Timing]) -> list[Row]:
    """Return a row per record, in the order of the board.

    Shares and what is retained are of full depth. With `retained` come the ends of its 95 % interval; with each batch
    size that was timed, `speedup_bN` and `decode_ms_per_token_bN`.
    """
    tracks = build_tracks(records, times)
    batches = sorted({batch for track in tracks for row in track.rows for batch in row.timings})
    rows: list[Row] = []
    for track in tracks:
        for row in track.rows:
            record = row.record
            quality, cost = record.quality, record.compute
            low, high = (quality and quality.retained_ci95) or (None, None)
            flat: dict[str, str | int | float | None] = {
                "task": record.task.name,
                "label": row.label,
                "budget": record.run.budget,
                "seed": record.run.seed,
                "backbone": row.model,
                "kv": record.run.kv,
                "documents": record.task.n,
                "metric": record.task.metric,
                "quality": None if quality is None else quality.mean,
                "retained": None if quality is None else quality.retained,
                "retained_low": low,
                "retained_high": high,
                "layer_share": None if cost is None else cost.layer_share,
                "flop_share_decode": None if cost is None else cost.flop_share_decode,
                "flop_share_total": None if cost is None else cost.flop_share_total,
                "status": record.status,
                "key": record.key,
            }
            for batch in batches:
                timing = row.timings.get(batch)
                flat[f"speedup_b{batch}"] = None if timing is None else timing.speedup
                flat[f"decode_ms_per_token_b{batch}"] = None if timing is None else timing.decode_ms_per_token
            rows.append(flat)
    return rows


def title(row: Row) -> str:
    """Return what a row is called: "nano_math/static_skip@0.5", a seed beyond the first named too."""
    at = "" if row["budget"] is None else f"@{row['budget']:g}"
    return f"{row['task']}/{row['label']}{at}{seed_of(row)}"


def seed_of(row: Row) -> str:
    """Return what names a seed beyond the first, such as " seed 2"; empty for the first."""
    return f" seed {row['seed']}" if row["seed"] else ""


def figures(row: Row) -> dict[str, float]:
    """Return the known figures of a row by name."""
    return {
        name: float(value)
        for name, value in row.items()
        if (name in FIGURES or name.startswith("speedup_b")) and isinstance(value, int | float)
    }
