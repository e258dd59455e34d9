"""What a submission holds, read once, beside what this installation knows of its tasks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dlbench.data import suites
from dlbench.data.document import Document, documents_sha256, with_thinking
from dlbench.data.loader import load_task
from dlbench.data.task import Task
from dlbench.data.task_options import Sources
from dlbench.data.thinking import Thinking
from dlbench.records.schema import Asked, Record, Sample, Timing
from dlbench.submission.faults import FaultList
from dlbench.submission.manifest import Manifest
from dlbench.submission.untrusted import Item, lines


@dataclass(frozen=True)
class TrackDocuments:
    """A task as this installation has it, and what a track takes of it."""

    task: Task
    documents: list[Document]
    """Those that the run took, in the task's order."""
    sha256: str
    """Over the whole scored split."""
    of: int
    """Documents in the scored split."""

    @cached_property
    def by_id(self) -> dict[str, Document]:
        """The documents by id."""
        return {d.id: d for d in self.documents}


@dataclass
class Submission:
    """A submission whose files are intact."""

    folder: Path
    manifest: Manifest
    intact: set[str]
    """Paths that may be read."""
    faults: FaultList
    sources: Sources
    """Where this installation finds the tasks' data."""
    _tracks: dict[str, TrackDocuments | None] = field(default_factory=dict)

    @cached_property
    def records(self) -> list[Record]:
        """The rows."""
        found = list(self._lines("records.jsonl", Record))
        if not found:
            self.faults.add("no-records", "records.jsonl", "no row can be read")
        return found

    @cached_property
    def timings(self) -> list[Timing]:
        """The times."""
        return list(self._lines("timing.jsonl", Timing))

    @cached_property
    def asked(self) -> dict[str, dict[str, Asked]]:
        """Prompts and references as the submission has them, by track and document."""
        asked: dict[str, dict[str, Asked]] = {}
        for line in self._lines("documents.jsonl", Asked):
            if line.id in asked.setdefault(line.track, {}):
                self.faults.add("documents-differ", "documents.jsonl", f"document {line.id!r} is there twice")
            asked[line.track][line.id] = line
        return asked

    def samples(self, key: str) -> list[Sample]:
        """The samples of a row; empty where their file cannot be read."""
        return list(self._lines(f"samples/{key}.jsonl", Sample))

    def _lines(self, path: str, model: type[Item]) -> Iterable[Item]:
        return lines(self.folder / path, path, model, self.faults) if path in self.intact else ()

    def full(self, track: str) -> Record | None:
        """The base backbone's full depth on a track."""
        return next(
            (
                r
                for r in self.records
                if r.track == track and r.method.name == "full" and r.backbone.sha256 == r.backbone.base_sha256
            ),
            None,
        )

    def track(self, name: str) -> TrackDocuments | None:
        """The documents of a track, from this installation; None, with a fault, where it has no such task."""
        if name not in self._tracks:
            self._tracks[name] = self._load(name)
        return self._tracks[name]

    def _load(self, name: str) -> TrackDocuments | None:
        facts = self.manifest.tracks.get(name)
        # A name that is no suite's task might be a path of YAML, which may name code.
        if facts is None or facts.task not in suites.tasks():
            self.faults.add("task-unknown", name, "the track's task is none of dlbench's suites")
            return None
        sources = dataclasses.replace(self.sources, fewshot=facts.fewshot, max_new_tokens=facts.max_new_tokens)
        task = load_task(facts.task, sources)
        asked = self.asked.get(name, {})
        split = task.documents("test")
        if facts.chat:
            split = [dataclasses.replace(d, prompt=asked[d.id].prompt) if d.id in asked else d for d in split]
        marks = facts.thinking
        split = with_thinking(split, None if marks is None else Thinking(marks.start, marks.end, special=marks.special))
        self._compare(name, split, asked)
        taken = [d for d in split if d.id in asked]
        return TrackDocuments(task, taken, documents_sha256(split), len(split))

    def _compare(self, name: str, split: list[Document], asked: dict[str, Asked]) -> None:
        """Note faults for prompts and references that are not the task's."""
        known = {d.id: d for d in split}
        for id_, line in asked.items():
            own = known.get(id_)
            where = f"documents.jsonl, {id_!r} of {name}"
            if own is None:
                self.faults.add("documents-differ", where, "the task has no such document")
            elif (line.prompt, line.references, line.source) != (own.prompt, own.references, own.source):
                self.faults.add("documents-differ", where, "prompt, references or source are not the task's")
