"""The folder of a run. Samples are kept per document, so that a later run with the same content key resumes.

run.json                 marks the folder as dlbench's; the command's settings and versions
records.jsonl            rows of the board
documents.jsonl          prompts and references of the test documents
timing.jsonl             times, measured in a process of their own
samples/<key>.jsonl      one line per document, in the task's order
samples/<key>.<n>.part   lines of process n that are not merged yet
samples/<key>.candidates.jsonl   scores of an oracle's candidates per document
samples/<key>.jsonl.damaged      a file with lines that cannot be believed, as it was found
fits/<key>/              fitted parameters and weights
refitted/                which fits an unfinished run with --refit has made
tune/samples/            samples of documents of the fit split, by which budgets and representatives are chosen
methods/                 plugin files of methods that were given as classes (`dlbench.run`)
site/                    the board
log.jsonl, state.json    what happened in the run, and how far it is
.lock                    held by the command that writes here
.*.scratch               being written; of no use once that command has ended
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError, RecordError
from dlbench.records.checksum import parse_sealed, sealed_line
from dlbench.records.jsonl import write_lines
from dlbench.records.refitted import REFITTED
from dlbench.records.schema import CandidateScore, Sample
from dlbench.system import folder_lock, process_group
from dlbench.system.files import SCRATCH, naming, remove_scratch, write_pieces, write_text
from dlbench.system.paths import brief, reason
from dlbench.terminal.event_log import LOG_FILE, STATE_FILE

RUN_FILE = "run.json"
"""The file that marks a folder as that of a run."""
_KEPT = 2
"""Keys whose samples are kept in memory."""
_BLOCK = 1 << 16
METHODS = "methods"
"""Folder of the plugin files that are written for methods given as classes."""
_BESIDE = (folder_lock.LOCK_FILE, LOG_FILE, f"{LOG_FILE}.old", STATE_FILE)
"""Files that a run writes beside the mark of its folder."""
_OF_KEYS, _KEYED = ("samples", "fits", REFITTED), re.compile(r"[0-9a-f]{32}\b")
"""Folders whose files and folders begin with content keys."""
_BENEATH = f"{'x' * 64}/{'x' * 64}"
"""A path at least as long as any that a run writes in its folder."""


class Store:
    """Reads and writes one run folder.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.samples_dir = out / "samples"
        self._ids: dict[str, set[str]] = {}
        self._recent: dict[str, dict[str, Sample]] = {}
        """The samples of the keys that were asked for last: those of all would fill the memory in a long run."""
        self._from_earlier: dict[str, frozenset[str]] = {}
        self._damaged: dict[str, list[str]] = {}
        self._lock = folder_lock.FolderLock(out)

    def open(self, facts: dict[str, Any]) -> None:
        """Create the folder, take its lock, remove what killed processes left, and write run.json.

        Raises:
            DlbenchError: another command writes to the folder.
            RecordError: the folder cannot be written.
        """
        with naming(self.samples_dir):
            self.samples_dir.mkdir(parents=True, exist_ok=True)
            if self._lock.take():
                remove_scratch(self.out)
        write_text(self.out / RUN_FILE, json.dumps(facts, indent=1, sort_keys=True) + "\n")

    def close(self) -> None:
        """Give the folder's lock back."""
        self._lock.free()

    def path(self, key: str) -> Path:
        """The merged samples of a key."""
        return self.samples_dir / f"{key}.jsonl"

    def samples(self, key: str) -> dict[str, Sample]:
        """All samples of a key by document id, merged or not; read again where other keys were asked for since.

        Left out are lines that were cut off by a crash, that hold something else or another key's sample, and samples
        that cannot be scored again: their documents are decoded again.
        """
        samples = self._recent.pop(key, None)
        if samples is None:
            samples = {}
            self._damaged.pop(key, None)
            for path in (self.path(key), *self._parts(key)):
                for sample in self._sound(key, path):
                    samples.setdefault(sample.id, sample)
            self._ids[key] = set(samples)
            self._from_earlier.setdefault(key, frozenset(samples))
        self._recent[key] = samples
        while len(self._recent) > _KEPT:
            del self._recent[next(iter(self._recent))]
        return samples

    def _parts(self, key: str) -> list[Path]:
        """The files of a key that processes append to, in the order of their names."""
        # no glob with the key in it: Python compiles each pattern, and keeps it
        return sorted(path for path in self.samples_dir.glob("*.part") if path.name.startswith(f"{key}."))

    def ids(self, key: str) -> Set[str]:
        """The documents that have a sample of a key."""
        if key not in self._ids:
            self.samples(key)
        return self._ids[key]

    def _sound(self, key: str, path: Path) -> Iterator[Sample]:
        """Yield the samples of a file, one line in memory at a time; note the faults of a merged one."""
        if not path.is_file():
            return
        with naming(path), path.open("rb") as file:
            number = 0
            while line := file.readline(Sample.max_line_bytes + 1):
                number += 1
                try:
                    if not line.endswith(b"\n"):
                        raise ValueError("its end is missing")
                    sample = parse_sealed(key, line)
                except ValueError as error:
                    if path == self.path(
                        key
                    ):  # a process that is killed leaves half a line in a part: nothing is wrong
                        self._damaged.setdefault(key, []).append(f"{path}, line {number}: {brief(str(error))}")
                    continue
                if _scorable(sample):
                    yield sample

    def damaged(self, key: str) -> str:
        """Say what is wrong with the merged samples of a key; empty where nothing is."""
        self.ids(key)
        first, *others = self._damaged.get(key, [""])
        return first + (f" (and {len(others)} more lines)" if others else "")

    def from_earlier_run(self, key: str) -> frozenset[str]:
        """Documents whose samples an earlier run has written: those on disk when the key was first read."""
        self.ids(key)
        return self._from_earlier[key]

    def append(self, key: str, process: int, samples: Iterable[Sample]) -> None:
        """Append samples of one wave; they are on disk when this returns.

        Raises:
            RecordError: they cannot be written.
        """
        new = list(samples)
        self.ids(key)
        path = self.samples_dir / f"{key}.{process}.part"
        with naming(path):
            whole = _whole_lines(path) if path.is_file() else 0
            with path.open("r+b" if path.is_file() else "wb") as file:
                file.truncate(whole)  # a line that a crash cut off would merge with the next
                file.seek(whole)
                file.write("".join(sealed_line(key, s) + "\n" for s in new).encode())
                file.flush()
        self._ids[key].update(s.id for s in new)
        self._recent.pop(key, None)

    def merge(self, key: str, order: Sequence[str], *, expected: bool = False) -> None:
        """Write the samples of a key as one file in the task's order; documents that it does not name come last.

        A merged file with damaged lines is kept beside it.

        Raises:
            RecordError: it cannot be written, or samples are missing where all are `expected` to be there.
        """
        self._recent.pop(key, None)
        samples = self.samples(key)
        known = [id_ for id_ in order if id_ in samples]
        others = sorted(set(samples) - set(known))
        if self._damaged.get(key):
            with naming(self.path(key)):
                shutil.copyfile(self.path(key), self.path(key).with_suffix(".jsonl.damaged"))
        self._write(key, [samples[id_] for id_ in (*known, *others)])
        for part in self._parts(key):
            part.unlink()
        if expected and len(known) < len(order):
            raise RecordError(
                f"{self.path(key)}: {len(order) - len(known)} samples are gone: the folder was changed while the run "
                "wrote there; the same command decodes them again"
            )

    def replace(self, key: str, samples: Iterable[Sample]) -> None:
        """Replace the samples of the same documents; the key must be merged."""
        replaced = {**self.samples(key), **{s.id: s for s in samples}}
        self._write(key, replaced.values())
        self._recent[key] = replaced

    def put(self, key: str, samples: Sequence[Sample]) -> None:
        """Write the samples of a row that is computed from other rows' (an oracle's)."""
        self._write(key, samples)

    def _write(self, key: str, samples: Iterable[Sample]) -> None:
        write_pieces(self.path(key), (sealed_line(key, sample) + "\n" for sample in samples))

    def put_candidates(self, key: str, lines: Sequence[CandidateScore]) -> None:
        """Write the scores of an oracle's candidates."""
        write_lines(self.samples_dir / f"{key}.candidates.jsonl", lines)


def _whole_lines(path: Path) -> int:
    """Bytes of a file up to the end of its last whole line, read from its end on."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _BLOCK)
            file.seek(start)
            if (place := file.read(end - start).rfind(b"\n")) >= 0:
                return start + place + 1
            end = start
    return 0


def _scorable(sample: Sample) -> bool:
    """Whether a sample can be scored again: it holds its text, or the log-likelihoods of given answers."""
    return sample.tokens.generated > 0 or bool(sample.answers)


def check_folder(out: Path, marker: str, what: str) -> None:
    """Check that a run may write to a folder, without leaving anything in it.

    Args:
        out: the folder; it need not exist.
        marker: the file that marks such a folder.
        what: what the folder belongs to, for messages: "run" or "training".

    Raises:
        DlbenchError: it cannot be written, or holds other files.
    """
    if process_group.rank():
        return  # the first process checks, and creates the folder while the others start
    place = out
    try:
        if out.exists() and not out.is_dir():
            raise DlbenchError(f"--out {out} is a file: give a folder")
        place = next(p for p in (out.absolute(), *out.absolute().parents) if os.path.lexists(p))
        # `exists` raises for a name that is too long where its folder exists, and for a path that is too long anywhere.
        for part in (*map(Path, out.absolute().relative_to(place).parts), out.absolute() / _BENEATH):
            (place / part).exists()
        if out.is_dir() and not (out / marker).is_file() and not all(map(_before_marker, out.iterdir())):
            raise DlbenchError(
                f"--out {out} holds files but no {marker}, so it is not a dlbench {what}: give a new or empty folder"
            )
        # Permission bits do not decide for every user and file system, so a folder is created, and removed again.
        tempfile.TemporaryDirectory(prefix=".dlbench-", suffix=SCRATCH, dir=place).cleanup()
        folder_lock.check_free(out)
    except OSError as error:
        where = "" if place is out else f"{brief(str(place))}: "
        raise DlbenchError(
            f"--out {brief(str(out))} cannot be written ({where}{reason(error)}): give another folder"
        ) from error


def _before_marker(path: Path) -> bool:
    """Whether a path in a folder without its mark is something that a run makes there.

    It was begun and killed, or went on for a while after the folder had been removed: what it then wrote made it anew.
    """
    if path.name.endswith(SCRATCH):
        return True
    if not path.is_dir():
        return path.name in _BESIDE
    inside = list(path.iterdir())
    if path.name == METHODS:
        return all(file.suffix == ".py" for file in inside)
    if path.name == "tune":
        return all(one.name == RUN_FILE or _before_marker(one) for one in inside)
    return path.name in _OF_KEYS and all(_KEYED.match(one.name) or one.name.endswith(SCRATCH) for one in inside)
