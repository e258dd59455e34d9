"""The folder of a run. Samples are kept per document, so that a later run with the same content key resumes.

run.json                 marks the folder as dlbench's; the command's settings and versions
records.jsonl            rows of the board
documents.jsonl          prompts and references of the test documents
timing.jsonl             times, measured in a process of their own
samples/<key>.jsonl      one line per document, in the task's order
samples/<key>.<n>.part   lines of process n that are not merged yet
samples/<key>.candidates.jsonl   scores of an oracle's candidates per document
fits/<key>/              fitted parameters and weights
tune/samples/            samples of documents of the fit split, by which budgets and representatives are chosen
site/                    the board
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.records.jsonl import format_line, parse_line, read_lines, write_lines
from dlbench.records.schema import CandidateScore, Sample
from dlbench.system import process_group
from dlbench.system.files import write_text
from dlbench.system.paths import brief, reason

RUN_FILE = "run.json"
"""The file that marks a folder as that of a run."""
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
        self._known: dict[str, dict[str, Sample]] = {}
        self._from_earlier: dict[str, frozenset[str]] = {}

    def open(self, facts: dict[str, Any]) -> None:
        """Create the folder, and write run.json."""
        self.samples_dir.mkdir(parents=True, exist_ok=True)
        write_text(self.out / RUN_FILE, json.dumps(facts, indent=1, sort_keys=True) + "\n")

    def path(self, key: str) -> Path:
        """The merged samples of a key."""
        return self.samples_dir / f"{key}.jsonl"

    def samples(self, key: str) -> dict[str, Sample]:
        """All samples of a key by document id, merged or not.

        Lines cut off by a crash are left out, and so are samples that cannot be scored again.
        """
        if key not in self._known:
            samples: dict[str, Sample] = {}
            if self.path(key).is_file():
                samples.update((s.id, s) for s in read_lines(self.path(key), Sample) if _scorable(s))
            for part in sorted(self.samples_dir.glob(f"{key}.*.part")):
                for line in part.read_bytes().splitlines(keepends=True):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        sample = parse_line(line, Sample)
                    except ValueError:
                        continue  # damaged: the document is decoded again, and its line appended
                    if _scorable(sample):
                        samples.setdefault(sample.id, sample)
            self._known[key] = samples
            self._from_earlier.setdefault(key, frozenset(samples))
        return self._known[key]

    def from_earlier_run(self, key: str) -> frozenset[str]:
        """Documents whose samples an earlier run has written: those on disk when the key was first read."""
        self.samples(key)
        return self._from_earlier[key]

    def append(self, key: str, process: int, samples: Iterable[Sample]) -> None:
        """Append samples of one wave; they are on disk when this returns."""
        new = list(samples)
        known = self.samples(key)
        path = self.samples_dir / f"{key}.{process}.part"
        whole = path.read_bytes().rfind(b"\n") + 1 if path.is_file() else 0
        with path.open("r+b" if path.is_file() else "wb") as file:
            file.truncate(whole)  # a line that a crash cut off would merge with the next
            file.seek(whole)
            file.write("".join(format_line(s) + "\n" for s in new).encode())
            file.flush()
        known.update((s.id, s) for s in new)

    def merge(self, key: str, order: Sequence[str]) -> None:
        """Write the samples of a key as one file in the task's order; documents that it does not name come last."""
        self._known.pop(key, None)
        samples = self.samples(key)
        known = [id_ for id_ in order if id_ in samples]
        others = sorted(set(samples) - set(known))
        write_lines(self.path(key), [samples[id_] for id_ in (*known, *others)])
        for part in self.samples_dir.glob(f"{key}.*.part"):
            part.unlink()

    def replace(self, key: str, samples: Iterable[Sample]) -> None:
        """Replace the samples of the same documents; the key must be merged."""
        replaced = {**self.samples(key), **{s.id: s for s in samples}}
        write_lines(self.path(key), replaced.values())
        self._known[key] = replaced

    def put(self, key: str, samples: Sequence[Sample]) -> None:
        """Write the samples of a row that is computed from other rows' (an oracle's)."""
        write_lines(self.path(key), samples)

    def put_candidates(self, key: str, lines: Sequence[CandidateScore]) -> None:
        """Write the scores of an oracle's candidates."""
        write_lines(self.samples_dir / f"{key}.candidates.jsonl", lines)


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
        if out.is_dir() and any(out.iterdir()) and not (out / marker).is_file():
            raise DlbenchError(
                f"--out {out} holds files but no {marker}, so it is not a dlbench {what}: give a new or empty folder"
            )
        # Permission bits do not decide for every user and file system, so a folder is created, and removed again.
        tempfile.TemporaryDirectory(prefix=".dlbench-", dir=place).cleanup()
    except OSError as error:
        where = "" if place is out else f"{brief(str(place))}: "
        raise DlbenchError(
            f"--out {brief(str(out))} cannot be written ({where}{reason(error)}): give another folder"
        ) from error
