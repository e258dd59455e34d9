"""Views: what a page of the board shows, either one task or all tasks of a backbone together.

A view has entries: one method (or variant) at one budget. Rows that differ in their seed alone are repeats of one.
Over several tasks an entry is the mean of what it keeps of full depth on each, every task counting the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, geometric_mean
from typing import get_args

from dlbench.leaderboard import formatting
from dlbench.leaderboard.data.fit_seeds import SettingKey, group_seeds
from dlbench.leaderboard.data.tracks import Role, Row, Track
from dlbench.records.schema import Trust

_ORDER: dict[Role, int] = {"full": 0, "dense": 1, "method": 2, "oracle": 3}


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


SHARES = (
    Axis("total", "FLOPs, total", "FLOPs of prompt and output, share of full depth", True),
    Axis("decode", "FLOPs, decoding", "FLOPs of decoding, share of full depth", True),
    Axis("layers", "Layers", "executed layers, share of all", True),
)


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Times at one batch size; `speedup` is full's time per token over this one's, in the same process."""

    ms_per_token: float
    ms_per_document: float
    speedup: float | None


@dataclass(frozen=True, slots=True)
class BoardEntry:
    """One method, or variant of one, at one budget: a line of a table and a point of a chart.

    Attributes:
        id: for links; unique in its view, and the same as long as the records are.
        label: the method's name with what sets this variant apart.
        rows: by task; several of one task are repeats under other seeds.
        ok: the budget was reached on every task.
        score: mean of the task's metric; None over several tasks.
        retained: share of full depth's quality.
        bounds: 95 % interval of `retained`.
        costs: by the key of the axis.
        clocks: by batch size.
    """

    id: str
    label: str
    role: Role
    budget: float | None
    rows: tuple[tuple[Row, ...], ...]
    ok: bool
    score: float | None
    retained: float | None
    bounds: tuple[float, float] | None
    costs: Mapping[str, float]
    clocks: Mapping[int, BatchTimes]

    @property
    def first(self) -> Row:
        """One of the rows, for what they have in common."""
        return self.rows[0][0]

    @property
    def method(self) -> str:
        """The method's name."""
        return self.first.record.method.name

    @property
    def control(self) -> bool:
        """Whether it is a control (`Row.control`)."""
        return self.first.control

    @property
    def repeats(self) -> int:
        """How many fit seeds were run, on the task that has fewest."""
        return min(len(rows) for rows in self.rows)

    @property
    def trust(self) -> Trust:
        """The lowest level of trust of any of its rows."""
        order = get_args(Trust)
        least: Trust = min((row.record.trust for rows in self.rows for row in rows), key=order.index)
        return least

    @property
    def settings(self) -> str:
        """The parameters in words, where they are the same in all rows; else empty."""
        said = {row.setting for rows in self.rows for row in rows}
        return said.pop() if len(said) == 1 else ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """The remarks of its rows, each once; mostly none."""
        several = len(self.rows) > 1
        lines = [
            f"{row.record.task.name}: {row.remarks}" if several else row.remarks
            for rows in self.rows
            for row in rows
            if row.remarks
        ]
        return tuple(dict.fromkeys(lines))


@dataclass(frozen=True, slots=True)
class BoardView:
    """One page of the board.

    Attributes:
        slug: its file's name.
        title: the task, or what the tasks have in common.
        tracks: one, or one per task.
        axes: the costs that at least two of its entries have.
        missing: labels that stand on some of the tasks only, with how many.
    """

    slug: str
    title: str
    backbone: str
    tracks: tuple[Track, ...]
    entries: tuple[BoardEntry, ...]
    axes: tuple[Axis, ...]
    batches: tuple[int, ...]
    missing: tuple[tuple[str, int], ...] = ()

    @property
    def suite(self) -> bool:
        """Whether it takes several tasks together."""
        return len(self.tracks) > 1

    @property
    def metric(self) -> str:
        """The metric of the task; over several tasks, the quality kept."""
        return "quality kept" if self.suite else self.tracks[0].task.metric

    @property
    def documents(self) -> int:
        """Test documents of all its tasks."""
        return sum(track.task.n for track in self.tracks)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of all its records."""
        return frozenset(row.record.key for track in self.tracks for row in track.rows)

    def of(self, *roles: Role) -> list[BoardEntry]:
        """Return the entries of these roles, in order."""
        return [entry for entry in self.entries if entry.role in roles]


def build_views(tracks: Sequence[Track]) -> list[BoardView]:
    """Return the views of a board: for every backbone all its tasks together, then one by one."""
    families: dict[tuple[str, str], list[Track]] = defaultdict(list)
    for track in tracks:
        record = track.rows[0].record
        families[record.backbone.base_sha256, record.run.prompt].append(track)
    named = [(_family_name(members), members) for members in families.values()]
    named.sort(key=lambda one: (-len(one[1]), one[0], one[1][0].name))
    clashes = Counter(name for name, _ in named)
    views: list[BoardView] = []
    taken: Counter[str] = Counter()
    for name, members in named:
        record = members[0].rows[0].record
        shown = name
        if clashes[name] > 1:
            shown = f"{name}, prompt {record.run.prompt}"
        for suite in _suites(members):
            slug = _unique(formatting.slug(f"{shown}-all-tasks"), taken)
            views += [view for view in [_view(slug, "all tasks", shown, suite)] if view.entries]
        for track in members:
            views.append(_view(_unique(track.anchor, taken), track.task.name, shown, (track,)))
    return views


def _unique(stem: str, taken: Counter[str]) -> str:
    taken[stem] += 1
    return stem if taken[stem] == 1 else _unique(f"{stem}-{taken[stem]}", taken)


def _family_name(members: Iterable[Track]) -> str:
    """Return the name of the base backbone that these tracks share."""
    records = [row.record for track in members for row in track.rows]
    base = [record for record in records if record.backbone.sha256 == record.backbone.base_sha256]
    names = Counter(record.backbone.name for record in base or records)
    return min(names, key=lambda name: (-names[name], name))


def _suites(members: Sequence[Track]) -> list[tuple[Track, ...]]:
    """Return the sets of tracks that may be averaged: each task once; if one stands twice, by number of documents."""
    if len(members) > 1 and len({track.task.name for track in members}) == len(members):
        return [tuple(members)]
    sizes: dict[int, list[Track]] = defaultdict(list)
    for track in members:
        sizes[track.task.n].append(track)
    return [
        tuple(same)
        for _, same in sorted(sizes.items(), reverse=True)
        if len(same) > 1 and len({track.task.name for track in same}) == len(same)
    ]


def _view(slug: str, title: str, backbone: str, tracks: tuple[Track, ...]) -> BoardView:
    groups = [group_seeds(track.rows) for track in tracks]
    everywhere = [key for key in groups[0] if all(key in group for group in groups)]
    ids: Counter[str] = Counter()
    entries = [_entry(key, tuple(group[key] for group in groups), ids, len(tracks) > 1) for key in everywhere]
    entries = [entry for entry in entries if entry.retained is not None] if len(tracks) > 1 else entries
    entries.sort(key=lambda one: (_ORDER[one.role], one.label, one.budget or 2.0, one.id))
    averaged = {key.label for key in everywhere}
    missing = Counter(label for group in groups for label in {key.label for key in group} - averaged)
    batches = tuple(sorted({batch for entry in entries for batch in entry.clocks}))
    return BoardView(
        slug=slug,
        title=title,
        backbone=backbone,
        tracks=tracks,
        entries=tuple(entries),
        axes=tuple(axis for axis in _axes(batches) if sum(axis.key in entry.costs for entry in entries) > 1),
        batches=batches,
        missing=tuple(sorted(missing.items())),
    )


def _axes(batches: Iterable[int]) -> list[Axis]:
    axes = list(SHARES)
    for batch in batches:
        axes.append(Axis(f"token{batch}", f"ms/token, batch {batch}", f"ms per token, batch {batch}", False))
        axes.append(Axis(f"document{batch}", f"ms/document, batch {batch}", f"ms per document, batch {batch}", False))
    return axes


def _entry(key: SettingKey, rows: tuple[tuple[Row, ...], ...], ids: Counter[str], suite: bool) -> BoardEntry:
    label, budget = key.label, key.budget
    first = rows[0][0]
    stem = formatting.slug(label) or first.record.key[:10]
    stem = stem if budget is None else f"{stem}-{formatting.slug(f'{100 * budget:.6g}')}"
    kept = [_mean(row.record.quality.retained if row.record.quality else None for row in same) for same in rows]
    retained = fmean([one for one in kept if one is not None]) if None not in kept else None
    single = not suite and len(rows[0]) == 1 and first.record.quality is not None
    quality = first.record.quality
    return BoardEntry(
        id=_unique(stem, ids),
        label=label,
        role=first.role,
        budget=budget,
        rows=rows,
        ok=all(row.ok for same in rows for row in same),
        score=None if suite else _mean(row.record.quality.mean if row.record.quality else None for row in rows[0]),
        retained=retained,
        bounds=quality.retained_ci95 if single and quality else None,
        costs=_costs(rows),
        clocks=_clocks(rows),
    )


def record_entry(row: Row) -> BoardEntry:
    """Return one record as an entry of its own, for tables that list records."""
    ((key, rows),) = group_seeds([row]).items()
    return _entry(key, (rows,), Counter(), suite=False)


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean; None where a value is missing."""
    known = list(values)
    return fmean([one for one in known if one is not None]) if known and None not in known else None


def _geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; of a single value the value itself, without rounding."""
    return values[0] if len(values) == 1 else geometric_mean(values)


def _costs(rows: Sequence[Sequence[Row]]) -> dict[str, float]:
    fields = {"total": "flop_share_total", "decode": "flop_share_decode", "layers": "layer_share"}
    costs = {
        key: _mean(
            _mean(getattr(row.record.compute, name) if row.record.compute else None for row in same) for same in rows
        )
        for key, name in fields.items()
    }
    for batch, clock in _clocks(rows).items():
        costs[f"token{batch}"], costs[f"document{batch}"] = clock.ms_per_token, clock.ms_per_document
    return {key: value for key, value in costs.items() if value is not None}


def _clocks(rows: Sequence[Sequence[Row]]) -> dict[int, BatchTimes]:
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


def series(entries: Iterable[BoardEntry]) -> dict[str, list[BoardEntry]]:
    """Return entries by label: the settings of one method, in order."""
    by_label: dict[str, list[BoardEntry]] = {}
    for entry in entries:
        by_label.setdefault(entry.label, []).append(entry)
    return by_label


def kind_of(entry: BoardEntry) -> str:
    """Return what the entry is on the board: `full`, `dense`, `method`, `control` or `oracle`."""
    return "control" if entry.control else entry.role


def shown(entry: BoardEntry) -> bool:
    """Return whether charts show it: it reached its budget, and has a cost and a quality."""
    return entry.ok and bool(entry.costs) and (entry.retained is not None or entry.score is not None)


def relative(entries: Sequence[BoardEntry]) -> bool:
    """Return whether charts of these entries show the share of full depth's quality; else they show the metric."""
    return all(entry.retained is not None for entry in entries if shown(entry))
