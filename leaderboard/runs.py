"""Read run folders: records, timings and per-document scores, checked and merged."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dlbench.lines import JsonLine, read_lines
from dlbench.records import Record, RecordError, Sample, Timing
from dlbench.records import Scores as ScoresLine

Item = TypeVar("Item", bound=JsonLine)
Scores = Mapping[str, Mapping[str, float]]
"""Record key → document id → primary score."""


@dataclass(frozen=True, slots=True)
class Runs:
    """What one or several run folders hold, in an order that does not depend on the folders' order.

    Attributes:
        scores: per record key, as far as the folders have samples or scores.
    """

    records: tuple[Record, ...]
    timings: tuple[Timing, ...]
    scores: Scores


def read_runs(run_dirs: Sequence[Path]) -> Runs:
    """Read and merge run folders.

    Raises:
        RecordError: a folder has no records, a line is bad, or two folders disagree about one result.
    """
    if not run_dirs:
        raise RecordError("no run folder given: name at least one folder with a records.jsonl")
    for run_dir in run_dirs:
        if not (run_dir / "records.jsonl").is_file():
            raise RecordError(f"{run_dir}: no records.jsonl in it; is it the --out of a finished dlbench run?")
    records = _merge(run_dirs, "records.jsonl", Record, _result, _figures)
    timings = _merge(run_dirs, "timing.jsonl", Timing, _clocked, lambda timing: None)
    scores: dict[str, dict[str, float]] = {}
    for path in (run_dir / "scores.jsonl" for run_dir in run_dirs):
        if path.is_file():
            scores.update((line.key, dict(line.scores)) for line in read_lines(path, ScoresLine))
    for key in {record.key for record in records}:
        for path in (run_dir / "samples" / f"{key}.jsonl" for run_dir in run_dirs):
            if path.is_file():
                scores[key] = {sample.id: sample.score for sample in read_lines(path, Sample)}
                break
    return Runs(records, timings, scores)


def _result(record: Record) -> Hashable:
    # Two budgets may end at the same parameters, and so share a key.
    return (record.track, record.task.name, record.method.name, record.key, record.run.budget or 0.0)


def _figures(record: Record) -> Hashable:
    return record.model_copy(update={"env": {}, "notes": ()}).model_dump_json()


def _clocked(timing: Timing) -> Hashable:
    where = (timing.device, timing.kernels)
    return (timing.task, timing.method, timing.key, timing.budget or 0.0, timing.batch_size, *where)


def _merge(
    run_dirs: Iterable[Path],
    name: str,
    model: type[Item],
    identity: Callable[[Item], Hashable],
    figures: Callable[[Item], Hashable],
) -> tuple[Item, ...]:
    """Read one file of every folder; of what stands in several, keep the first and insist that the figures agree."""
    found: dict[Hashable, tuple[Item, str]] = {}
    for path in (run_dir / name for run_dir in run_dirs):
        if not path.is_file():
            continue
        for number, item in enumerate(read_lines(path, model), start=1):
            here = f"{path}, line {number}"
            kept, there = found.setdefault(identity(item), (item, here))
            if figures(kept) != figures(item):
                raise RecordError(f"{here}: other figures for the same result than in {there}; keep one of them")
    return tuple(item for _, (item, _) in sorted(found.items(), key=lambda entry: str(entry[0])))
