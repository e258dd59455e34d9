"""What sets tracks of one task apart, in words: other documents, another base, an older protocol or version."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from dlbench.leaderboard.data.same_key import place_of
from dlbench.leaderboard.data.tracks import Track

_DRAWN = {"all": "all {n}", "first": "the first {n}", "sample": "a sample of {n}"}


def documents_of(track: Track) -> str:
    """Return over which documents a track is: "the first 200 of 250 documents"."""
    task = track.task
    words = _DRAWN.get(task.drawn or "", "{n}").format(n=f"{task.n:,}")
    of = f" of {task.of:,}" if task.of is not None and task.of > task.n else ""
    return f"{words}{of} documents"


def base_of(track: Track) -> str:
    """Return the name of the model with which a track's rows are compared; empty where it did not run."""
    own = [row.model for row in track.rows if row.record.backbone.sha256 == row.record.backbone.base_sha256]
    return own[0] if own else ""


def apart(tracks: Iterable[Track]) -> list[str]:
    """Return a line for each task whose rows stand in several tables, with why: documents, or what is compared with."""
    by_task: dict[str, list[Track]] = defaultdict(list)
    for track in tracks:
        by_task[track.task.name].append(track)
    return [line for task, same in sorted(by_task.items()) for line in (*_documents(task, same), *_bases(task, same))]


def _documents(task: str, tracks: Sequence[Track]) -> list[str]:
    by_name: dict[str, list[Track]] = defaultdict(list)
    for track in tracks:
        by_name[track.name].append(track)
    lines = []
    for same in by_name.values():
        if len({place_of(track.rows[0].record) for track in same}) < 2:
            continue
        ordered = sorted(same, key=lambda one: (-one.task.n, documents_of(one)))
        told = "; ".join(f"{documents_of(one)} ({_rows(one)})" for one in ordered)
        base = base_of(ordered[0])
        where = f"{task} on {base}" if base else task
        lines.append(f"{where}: rows over different documents stand in tables of their own, never compared: {told}")
    return lines


def _bases(task: str, tracks: Sequence[Track]) -> list[str]:
    """Return a line for each model that is compared with a base in one track, and with itself in another."""
    ran: dict[str, set[str]] = defaultdict(set)
    for track in tracks:
        for row in track.rows:
            ran[row.model].add(base_of(track))
    return [
        f"{task}: {model} ran alone too, compared with its own full depth: those shares stand in a table of their own, "
        f"never compared with shares of {' or of '.join(sorted(bases - {model, ''}))}"
        for model, bases in sorted(ran.items())
        if model in bases and bases - {model, ""}
    ]


def _rows(track: Track) -> str:
    return f"{len(track.rows)} row{'' if len(track.rows) == 1 else 's'}"


def superseded(tracks: Iterable[Track]) -> list[str]:
    """Return a line for each track of an older protocol or version of a task that stands beside a newer one."""
    groups: dict[tuple[str, str], dict[tuple[str, str], str]] = defaultdict(dict)
    for track in tracks:
        facts = dict(part.split("=", 1) for part in track.name.split() if "=" in part)
        age = (facts.get("protocol", ""), track.task.version)
        groups[track.task.name, facts.get("base", "")][age] = track.name
    lines = []
    for (task, _), by_age in sorted(groups.items()):
        newest = max(by_age, key=lambda age: tuple(map(_natural, age)))
        lines += [
            f"{task}: rows of protocol {protocol}, version {version}, are superseded by protocol {newest[0]}, version "
            f"{newest[1]}; they stay in a track of their own and are never ranked with the newer ones"
            for protocol, version in sorted(by_age)
            if (protocol, version) != newest
        ]
    return lines


def _natural(text: str) -> tuple[tuple[int, str], ...]:
    """A key that orders versions by their numbers."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in text.split("."))
