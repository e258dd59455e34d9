"""Read run folders: records, timings, per-document scores and where layers were spent, checked and merged."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar, get_args

from dlbench.errors import RecordError
from dlbench.leaderboard.data.layer_usage import count_usage
from dlbench.leaderboard.data.same_key import BoardKeys, place_of
from dlbench.leaderboard.data.tracks import Track, build_tracks
from dlbench.records.checksum import read_samples
from dlbench.records.jsonl import JsonLine, read_lines
from dlbench.records.schema import Asked, Record, Sample, SharedSources, Timing, Trust, Usage
from dlbench.records.schema import Scores as ScoresLine

Item = TypeVar("Item", bound=JsonLine)
Keyed = TypeVar("Keyed", Timing, Usage)
Value = TypeVar("Value")
Scores = Mapping[str, Mapping[str, float]]
"""Record key → document id → primary score."""
Sources = Mapping[str, Mapping[str, str]]
"""Track → document id → hash of its source, of documents that have one."""
NO_SOURCES: Sources = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Runs:
    """What one or several run folders hold, in an order that does not depend on the folders' order.

    Attributes:
        tracks: the records as rows that may be compared; built here, once, for everything that a board shows.
        scores: per record key, as far as the folders have samples or scores.
        usage: per record key, as far as the folders have samples or usage.
        samples: the file of a key's samples, where they are there; every line of it has been checked.
        asked: files with the prompts and references.
        sources: what documents share, by track, as far as the folders say.
    """

    records: tuple[Record, ...]
    timings: tuple[Timing, ...]
    tracks: tuple[Track, ...]
    scores: Scores
    usage: Mapping[str, Usage] = field(default_factory=dict)
    samples: Mapping[str, Path] = field(default_factory=dict)
    asked: tuple[Path, ...] = ()
    sources: Sources = field(default_factory=dict)

    def of(self, keys: Container[str]) -> Runs:
        """Return the part of the runs that belongs to some record keys, to be sent to another process."""

        def some(by_key: Mapping[str, Value]) -> dict[str, Value]:
            return {key: value for key, value in by_key.items() if key in keys}

        records = tuple(record for record in self.records if record.key in keys)
        names = {record.track for record in records}
        return Runs(
            records=records,
            timings=(),
            tracks=tuple(track for track in self.tracks if any(row.record.key in keys for row in track.rows)),
            scores=some(self.scores),
            usage=some(self.usage),
            samples=some(self.samples),
            sources={track: of_track for track, of_track in self.sources.items() if track in names},
        )

    def documents(self) -> dict[str, dict[str, Asked]]:
        """Return prompts and references by track and document id."""
        tracks = {record.track for record in self.records}
        asked: dict[str, dict[str, Asked]] = {track: {} for track in sorted(tracks)}
        for path in self.asked:
            for line in read_lines(path, Asked):
                if line.track in tracks:
                    asked[line.track].setdefault(line.id, line)
        return asked


def read_runs(run_dirs: Sequence[Path]) -> Runs:
    """Read and merge run folders.

    Raises:
        RecordError: a folder has no records.jsonl, none has a record, a line is bad, or two folders disagree about one
            result.
    """
    if not run_dirs:
        raise RecordError("no run folder given: name at least one folder with a records.jsonl")
    for run_dir in run_dirs:
        if not (run_dir / "records.jsonl").is_file():
            raise RecordError(f"{run_dir}: no records.jsonl in it; is it the --out of a finished dlbench run?")
    by_folder = {run_dir: list(read_lines(run_dir / "records.jsonl", Record)) for run_dir in run_dirs}
    keys = BoardKeys(by_folder)
    own = {run_dir: keys.own(run_dir) for run_dir in run_dirs}
    records = _merge(
        run_dirs,
        "records.jsonl",
        Record,
        _result,
        _figures,
        choose=_least_trusted,
        rename=lambda folder, record: [keys.record(folder, record)],
    )
    if not records:
        raise RecordError(
            f"{', '.join(map(str, run_dirs))}: records.jsonl holds no record, so there is nothing to show"
        )
    timings = _merge(
        run_dirs, "timing.jsonl", Timing, _clocked, lambda timing: None, rename=lambda *line: _renamed(keys, *line)
    )
    layers = {record.key: record.backbone.layers for record in records}
    scores: dict[str, Mapping[str, float]] = {}
    usage: dict[str, Usage] = {}
    samples: dict[str, Path] = {}
    for path in _files(run_dirs, "scores.jsonl"):
        for line in read_lines(path, ScoresLine):
            scores.update((key, line.scores) for key in keys.of(path.parent, line.key))
    for path in _files(run_dirs, "usage.jsonl"):
        for of_layers in read_lines(path, Usage):
            usage.update((one.key, one) for one in _renamed(keys, path.parent, of_layers))
    tracks = {record.key: record.track for record in records}
    sources: dict[str, dict[str, str]] = {track: {} for track in tracks.values()}
    for path in _files(run_dirs, "sources.jsonl"):
        for one in read_lines(path, SharedSources):
            _add_sources(sources, one.track, one.sources, path)
    asked = {run_dir: _asked_ids(run_dir, sources) for run_dir in run_dirs}
    for key in sorted(layers):
        for run_dir in run_dirs:
            path = run_dir / "samples" / f"{own[run_dir].get(key)}.jsonl"
            if path.is_file():
                scores[key], usage[key] = _sampled(path, key, layers[key], asked[run_dir].get(tracks[key]))
                samples[key] = path
                break
    return Runs(
        records=records,
        timings=timings,
        tracks=tuple(build_tracks(records, timings)),
        scores=scores,
        usage=usage,
        samples=samples,
        asked=tuple(_files(run_dirs, "documents.jsonl")),
        sources=sources,
    )


def _add_sources(sources: Mapping[str, dict[str, str]], track: str, more: Mapping[str, str], path: Path) -> None:
    """Add the sources of documents to those known of the runs' tracks; two folders must name the same source.

    Raises:
        RecordError: a document has another source already.
    """
    known = sources.get(track)
    if known is None:
        return
    for id_, source in more.items():
        if known.setdefault(id_, source) != source:
            raise RecordError(f"{path}: document {id_!r} of {track} has another source in another folder; keep one")


def _asked_ids(run_dir: Path, sources: Mapping[str, dict[str, str]]) -> dict[str, set[str]]:
    """Return the documents of a folder's latest run by track; empty where the folder does not say.

    An earlier run of more documents leaves samples that the records do not count. The documents' sources are added to
    those that are known.
    """
    ids: dict[str, set[str]] = {}
    for path in _files([run_dir], "documents.jsonl"):
        for line in read_lines(path, Asked):
            ids.setdefault(line.track, set()).add(line.id)
            if line.source is not None:
                _add_sources(sources, line.track, {line.id: line.source}, path)
    return ids


def _files(run_dirs: Iterable[Path], name: str) -> list[Path]:
    return [path for run_dir in run_dirs if (path := run_dir / name).is_file()]


def _sampled(path: Path, key: str, depth: int, wanted: Container[str] | None) -> tuple[Mapping[str, float], Usage]:
    """Return scores and layer usage from one pass over a record's samples: of the wanted documents, or of all."""
    scores: dict[str, float] = {}

    def seen() -> Iterable[Sample]:
        for sample in read_samples(path):
            if wanted is not None and sample.id not in wanted:
                continue
            if scores.setdefault(sample.id, sample.score) != sample.score:
                raise RecordError(f"{path}: document {sample.id!r} is there twice, with two scores; keep one of them")
            yield sample

    usage = count_usage(key, depth, seen())
    return scores, usage


def _renamed(keys: BoardKeys, folder: Path, line: Keyed) -> list[Keyed]:
    """Return a line of a folder under each of the board's keys of its result; as it is where no record has its key."""
    own = keys.of(folder, line.key) or (line.key,)
    return [line if key == line.key else line.model_copy(update={"key": key}) for key in own]


def _result(record: Record) -> Hashable:
    # Two budgets may end at the same parameters, and so share a key.
    return (place_of(record), record.task.name, record.method.name, record.key, record.run.budget or 0.0)


def _figures(record: Record) -> Hashable:
    where: dict[str, object] = {"env": {}, "notes": (), "trust": "self-reported", "hardware": None}
    return record.model_copy(update=where).model_dump_json()


def _least_trusted(one: Record, other: Record) -> Record:
    """Return the one of lower trust: a copy in another folder confirms nothing."""
    order = get_args(Trust)
    return one if order.index(one.trust) <= order.index(other.trust) else other


def _clocked(timing: Timing) -> Hashable:
    where = (timing.device, timing.machine, timing.kernels)
    return (timing.task, timing.method, timing.key, timing.budget or 0.0, timing.batch_size, *where)


def _merge(
    run_dirs: Iterable[Path],
    name: str,
    model: type[Item],
    identity: Callable[[Item], Hashable],
    figures: Callable[[Item], Hashable],
    choose: Callable[[Item, Item], Item] = lambda kept, item: kept,
    rename: Callable[[Path, Item], Iterable[Item]] = lambda folder, item: [item],
) -> tuple[Item, ...]:
    """Read one file of every folder and keep each result once; raise where two folders give other figures for it."""
    merged: dict[Hashable, tuple[Item, str]] = {}
    for path in _files(run_dirs, name):
        for number, line in enumerate(read_lines(path, model), start=1):
            here = f"{path}, line {number}"
            for item in rename(path.parent, line):
                kept, there = merged.setdefault(identity(item), (item, here))
                if figures(kept) != figures(item):
                    raise RecordError(f"{here}: other figures for the same result than in {there}; keep one of them")
                merged[identity(item)] = (choose(kept, item), there)
    return tuple(item for _, (item, _) in sorted(merged.items(), key=lambda entry: str(entry[0])))
