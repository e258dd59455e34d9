"""The folder of a run: samples one by one, so that any later run of the same content goes on where it stopped.

run.json                 marks the folder as ours; the command's settings and versions
records.jsonl            rows of the board
documents.jsonl          prompts and references of the test documents
timing.jsonl             times, measured apart
samples/<key>.jsonl      one line per document, in the task's order
samples/<key>.<n>.part   lines of process n that are not merged yet
samples/<key>.candidates.jsonl   an oracle's candidates, document by document
fits/<key>/              fitted parameters and weights
site/                    the board
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dlbench.records.jsonl import format_line, parse_line, read_lines, write_lines, write_text
from dlbench.records.schema import CandidateScore, Sample
from dlbench.run.config import RUN_FILE


class Store:
    """Reads and writes one run folder."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.samples_dir = out / "samples"
        self._known: dict[str, dict[str, Sample]] = {}
        self._found: dict[str, frozenset[str]] = {}

    def open(self, facts: dict[str, Any]) -> None:
        """Make the folder and mark it."""
        self.samples_dir.mkdir(parents=True, exist_ok=True)
        write_text(self.out / RUN_FILE, json.dumps(facts, indent=1, sort_keys=True) + "\n")

    def path(self, key: str) -> Path:
        """The merged samples of a key."""
        return self.samples_dir / f"{key}.jsonl"

    def samples(self, key: str) -> dict[str, Sample]:
        """All samples of a key by document id, merged or not.

        A line torn by a crash does not count, nor does a sample that cannot be scored again.
        """
        if key not in self._known:
            found: dict[str, Sample] = {}
            if self.path(key).is_file():
                found.update((s.id, s) for s in read_lines(self.path(key), Sample) if _scorable(s))
            for part in sorted(self.samples_dir.glob(f"{key}.*.part")):
                for line in part.read_bytes().splitlines(keepends=True):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        sample = parse_line(line, Sample)
                    except ValueError:
                        continue  # damaged: decoded again, and the new line will stand further down
                    if _scorable(sample):
                        found.setdefault(sample.id, sample)
            self._known[key] = found
            self._found.setdefault(key, frozenset(found))
        return self._known[key]

    def found(self, key: str) -> frozenset[str]:
        """Documents whose samples were there when the key was first looked at: made by an earlier run."""
        self.samples(key)
        return self._found[key]

    def append(self, key: str, process: int, samples: Iterable[Sample]) -> None:
        """Add samples of one wave; on disk before this returns."""
        new = list(samples)
        known = self.samples(key)
        path = self.samples_dir / f"{key}.{process}.part"
        whole = path.read_bytes().rfind(b"\n") + 1 if path.is_file() else 0
        with path.open("r+b" if path.is_file() else "wb") as file:
            file.truncate(whole)  # a torn last line would swallow the next
            file.seek(whole)
            file.write("".join(format_line(s) + "\n" for s in new).encode())
            file.flush()
        known.update((s.id, s) for s in new)

    def merge(self, key: str, order: Sequence[str]) -> None:
        """Write the samples of a key as one file, in the task's order; what the order does not name comes last."""
        self._known.pop(key, None)
        found = self.samples(key)
        known = [id_ for id_ in order if id_ in found]
        others = sorted(set(found) - set(known))
        write_lines(self.path(key), [found[id_] for id_ in (*known, *others)])
        for part in self.samples_dir.glob(f"{key}.*.part"):
            part.unlink()

    def replace(self, key: str, samples: Iterable[Sample]) -> None:
        """Put samples in the place of those of the same documents; the key is merged."""
        found = {**self.samples(key), **{s.id: s for s in samples}}
        write_lines(self.path(key), found.values())
        self._known[key] = found

    def put(self, key: str, samples: Sequence[Sample]) -> None:
        """Write the samples of a row that is made of others' (an oracle's)."""
        write_lines(self.path(key), samples)

    def put_candidates(self, key: str, lines: Sequence[CandidateScore]) -> None:
        """Write an oracle's candidates beside its samples."""
        write_lines(self.samples_dir / f"{key}.candidates.jsonl", lines)


def _scorable(sample: Sample) -> bool:
    """Whether a sample holds what its scores are made of: its text or, where nothing was written, the likelihoods."""
    return sample.tokens.generated > 0 or bool(sample.answers)
