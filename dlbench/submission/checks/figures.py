"""Checks of records and times against samples: quality, sums and shares are computed again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from dlbench.evaluation.aggregate import Reference, compute, quality_of
from dlbench.records.schema import Quality, Record, Sample
from dlbench.submission.checks.rows import row_name, same
from dlbench.submission.checks.samples import SampleChecks
from dlbench.submission.contents import Submission, TrackDocuments
from dlbench.submission.layer_costs import LayerCosts


def check_figures(submission: Submission) -> None:
    """Check samples, records and times, track by track; full depth first, since the others are relative to it."""
    forwards: dict[str, float] = {}
    for track in dict.fromkeys(record.track for record in submission.records):
        own, full = submission.track(track), submission.full(track)
        rows = [r for r in submission.records if r.track == track]
        if full is None:
            submission.faults.add("full-missing", track, "no row of the base backbone at full depth")
        if own is not None:
            forwards |= _check_track(submission, own, full, rows)
    _check_times(submission, forwards)


def _check_track(
    submission: Submission, own: TrackDocuments, full: Record | None, rows: Sequence[Record]
) -> dict[str, float]:
    """Check the rows of a track, and return the decode forwards per document by key."""
    checks, forwards = SampleChecks(own, submission.faults), {}
    base: Reference | None = None
    for record in sorted(rows, key=lambda r: r is not full):
        costs = submission.manifest.costs.get(record.backbone.sha256)
        if costs is None or costs.depth != record.backbone.layers:
            continue
        samples = checks.check(record, submission.samples(record.key), costs)
        if not samples:
            continue
        if record is full:
            checks.full = {s.id: s for s in samples}
            base = Reference(costs.depth, costs, checks.full)
            _check_dense(submission, record, samples, costs)
        forwards[record.key] = sum(len(s.layers) for s in samples) / len(samples)
        if base is not None:
            _check_quality(submission, record, own, samples, base.samples)
            _check_compute(submission, record, samples, base)
    return forwards


def _check_dense(submission: Submission, record: Record, samples: Sequence[Sample], costs: LayerCosts) -> None:
    """Full depth costs what the sizes say, which all shares are relative to."""
    for s in samples:
        dense = costs.dense(s.tokens.prompt, s.tokens.generated)
        if s.tokens.generated and s.flops.total != dense:
            submission.faults.add("costs-differ", row_name(record), f"{s.flops.total:,} and {dense:,} for {s.id!r}")


def _check_quality(
    submission: Submission,
    record: Record,
    own: TrackDocuments,
    samples: Sequence[Sample],
    full: Mapping[str, Sample],
) -> None:
    claimed, known = record.quality, quality_of(own.task, own.documents, samples, full)
    cut = sum(s.truncated for s in samples)
    if record.task.truncated != cut:
        submission.faults.add("task-facts", row_name(record), f"truncated is {record.task.truncated}, not {cut}")
    if claimed is not None and (wrong := _differences(claimed, known)):
        submission.faults.add("quality-differs", row_name(record), "; ".join(wrong))


def _differences(claimed: Quality, known: Quality) -> list[str]:
    pairs: list[tuple[str, float | None, float | None]] = [
        (name, getattr(claimed, name), getattr(known, name)) for name in ("mean", "corpus", "full_mean", "retained")
    ]
    for end, name in enumerate(("retained_ci95 low", "retained_ci95 high")):
        one, other = claimed.retained_ci95, known.retained_ci95
        pairs.append((name, None if one is None else one[end], None if other is None else other[end]))
    for name in sorted(claimed.extra.keys() | known.extra.keys()):
        pairs.append((name, claimed.extra.get(name), known.extra.get(name)))
    return [f"{name} is {one}, the samples give {other}" for name, one, other in pairs if not same(one, other)]


def _check_compute(submission: Submission, record: Record, samples: Sequence[Sample], base: Reference) -> None:
    claimed, add, where = record.compute, submission.faults.add, row_name(record)
    if claimed is None:
        return
    try:
        known = compute(samples, base)
    except ValidationError as error:
        add("share-total", where, f"the samples give no share at all: {error.errors()[0]['msg']}")
        return
    for code, name in (
        ("share-layer", "layer_share"),
        ("share-decode", "flop_share_decode"),
        ("share-total", "flop_share_total"),
    ):
        if not same(getattr(claimed, name), getattr(known, name)):
            add(code, where, f"{getattr(claimed, name):g} claimed, {getattr(known, name):g} by the samples")
    sums = ("flops", "executed_flops", "tokens", "speculation")
    if wrong := [name for name in sums if getattr(claimed, name) != getattr(known, name)]:
        add("compute-sums", where, f"{', '.join(wrong)}: not the sums over the samples")


def _check_times(submission: Submission, forwards: Mapping[str, float]) -> None:
    add = submission.faults.add
    rows = {r.key: r for r in submission.records}
    seen: Counter[tuple[str, float | None, int]] = Counter()
    for timing in submission.timings:
        where = f"timing.jsonl, {timing.method} at batch {timing.batch_size} ({timing.key[:8]})"
        record = rows.get(timing.key)
        if record is None or (timing.task, timing.method) != (record.task.name, record.method.name):
            add("timing-unknown", where, "no row has this key, task and method")
            continue
        seen[timing.key, timing.budget, timing.batch_size] += 1
        if seen[timing.key, timing.budget, timing.batch_size] > 1:
            add("timing-twice", where, "there are several")
        if timing.key in forwards:
            whole = timing.decode_ms_per_token * forwards[timing.key] + timing.prefill_ms_per_document
            if not abs(whole - timing.ms_per_document) <= 1e-6 * whole + 1e-9:
                add("timing-differs", where, f"{timing.ms_per_document:g} ms per document, its parts give {whole:g}")
