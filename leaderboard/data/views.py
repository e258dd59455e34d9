"""Views: what a page of the board shows, either one task or all tasks of a backbone together.

A view has entries: one method (or variant) at one budget. Rows that differ in their seed alone are repeats of one.
Over several tasks an entry is the mean of what it keeps of full depth on each, every task counting the same.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dlbench.leaderboard import formatting
from dlbench.leaderboard.data.apart import documents_of
from dlbench.leaderboard.data.cost_axes import Axis, axes
from dlbench.leaderboard.data.entries import BoardEntry, build_entry, unique
from dlbench.leaderboard.data.fit_seeds import group_seeds
from dlbench.leaderboard.data.tracks import Role, Track

_ORDER: dict[Role, int] = {"full": 0, "dense": 1, "method": 2, "oracle": 3}


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
            slug = unique(formatting.slug(f"{shown}-all-tasks"), taken)
            views += [view for view in [_view(slug, "all tasks", shown, suite)] if view.entries]
        for track, title in zip(members, _titles(members), strict=True):
            views.append(_view(unique(track.anchor, taken), title, shown, (track,)))
    return views


def _titles(members: Sequence[Track]) -> list[str]:
    """Return the names of tasks; where tracks share one, with what tells them apart: documents, version, the draw."""
    by_task: dict[str, list[Track]] = defaultdict(list)
    for track in members:
        by_task[track.task.name].append(track)

    def title(track: Track) -> str:
        same = by_task[track.task.name]
        if len(same) == 1:
            return track.task.name
        place = same.index(track)
        numbers, versions = [f"{one.task.n} documents" for one in same], [f"version {one.task.version}" for one in same]
        for said in (numbers, versions, [documents_of(one) for one in same]):
            if len(set(said)) == len(same):
                return f"{track.task.name}, {said[place]}"
        return f"{track.task.name}, track {place + 1}"

    return [title(track) for track in members]


def _family_name(members: Iterable[Track]) -> str:
    """Return the name of the base backbone that these tracks share."""
    rows = [row for track in members for row in track.rows]
    base = [row for row in rows if row.record.backbone.sha256 == row.record.backbone.base_sha256]
    names = Counter(row.model for row in base or rows)
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
    fulls = [track.first("full") for track in tracks]
    entries = [
        build_entry(key, tuple(group[key] for group in groups), fulls, ids, len(tracks) > 1) for key in everywhere
    ]
    entries = [entry for entry in entries if entry.retained is not None] if len(tracks) > 1 else entries
    entries.sort(key=lambda one: (_ORDER[one.role], one.label, one.budget or 2.0, one.id))
    averaged = {key.label for key in everywhere}
    missing = Counter(label for group in groups for label in {key.label for key in group} - averaged)
    batches = tuple(sorted({batch for entry in entries for batch in entry.times}))
    return BoardView(
        slug=slug,
        title=title,
        backbone=backbone,
        tracks=tracks,
        entries=tuple(entries),
        axes=tuple(axis for axis in axes(batches) if sum(axis.key in entry.costs for entry in entries) > 1),
        batches=batches,
        missing=tuple(sorted(missing.items())),
    )
