"""Results that share a content key although they are over other documents, or compared with another base.

A key says what was decoded with what, document by document, so a run on 32 documents and one on 200 have the same
keys, and so have a model that was compared with its base and the same model alone. On a board they are different rows:
each has a key of its own here.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from dlbench.records.schema import Record

Place = tuple[str, int, str]
"""Track, number of documents, and how they were drawn: rows of one place may be compared."""


def place_of(record: Record) -> Place:
    """Return where a record belongs."""
    return record.track, record.task.n, record.task.drawn or ""


class BoardKeys:
    """The keys that a board gives to results: their own, or where one key stands in several places, one for each.

    The place of most documents keeps the key, then that of most records; so the order of the folders is no matter.

    Args:
        by_folder: the records of each run folder.
    """

    def __init__(self, by_folder: Mapping[Path, Sequence[Record]]) -> None:
        self._keys: dict[tuple[Path, str], dict[Place, str]] = defaultdict(dict)
        places: dict[str, set[Place]] = defaultdict(set)
        sizes: Counter[Place] = Counter()
        for records in by_folder.values():
            for record in records:
                places[record.key].add(place_of(record))
                sizes[place_of(record)] += 1
        for folder, records in by_folder.items():
            for record in records:
                first = min(places[record.key], key=lambda one: (-one[1], -sizes[one], one))
                here = place_of(record)
                self._keys[folder, record.key][here] = record.key if here == first else _derived(record.key, here)

    def record(self, folder: Path, record: Record) -> Record:
        """Return a record of a folder under the board's key."""
        key = self._keys[folder, record.key][place_of(record)]
        return record if key == record.key else record.model_copy(update={"key": key})

    def of(self, folder: Path, key: str) -> tuple[str, ...]:
        """Return the board's keys of what a folder has under a key; empty where it has no record of it."""
        return tuple(self._keys.get((folder, key), {}).values())

    def own(self, folder: Path) -> dict[str, str]:
        """Return by the board's key the key that a folder has it under."""
        return {board: key for (one, key), places in self._keys.items() if one == folder for board in places.values()}


def _derived(key: str, place: Place) -> str:
    return hashlib.sha256(repr((key, *place)).encode()).hexdigest()[:32]
