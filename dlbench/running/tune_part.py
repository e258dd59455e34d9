"""A few documents of the tune part of the fit split, decoded as the scored ones are: what a run chooses by.

Budgets are chosen by how much of full depth's quality is kept on them, and the method that stands for its class in a
claim by its score there. None of them is scored, and no method learns from them. Their samples are kept under content
keys, in a folder of their own, so that a run that is started again chooses the same without decoding anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from accelerate.utils import gather_object

from dlbench.data.document import Document, documents_sha256
from dlbench.data.splits import sample
from dlbench.errors import DlbenchError
from dlbench.evaluation.generation import QualityRun, total
from dlbench.evaluation.rescoring import rescore
from dlbench.evaluation.settings import Conditions, Setting
from dlbench.fit import halves
from dlbench.models.batch_size import most_rows
from dlbench.prompting.batching import waves
from dlbench.prompting.tokenize import Prompted, tokenise
from dlbench.records.run_folder import Store
from dlbench.running.job import Job
from dlbench.system.stopping import OVER, Stopped
from dlbench.terminal.progress import Progress

DOCUMENTS = 8
"""Most documents of a tune part that are decoded."""


@dataclass(frozen=True)
class TunePart:
    """Documents of a job's tune part.

    Attributes:
        documents: a sample that depends on their ids alone.
        conditions: those of the job, with the hash of these documents, so that content keys name them.
        batches: their prompts, in groups that are decoded together.
    """

    job: Job
    documents: Sequence[Document]
    conditions: Conditions
    batches: Sequence[list[Prompted]]

    def keyed(self, setting: Setting) -> Setting:
        """Return a setting with the content key of its samples on these documents."""
        return self.conditions.with_key(setting)


@dataclass
class TuneParts:
    """The tune parts of a run's jobs, which its processes decode together."""

    store: Store
    runs: Callable[[Job, Store], QualityRun]
    """Makes what decodes a job's documents into a store, in this process."""
    progress: Progress
    meet: Callable[[str], str]
    """Returns when all processes have called it, with the argument of the first process."""
    process: int = 0
    processes: int = 1
    _parts: dict[int, TunePart | None] = field(default_factory=dict)

    def of(self, job: Job) -> TunePart | None:
        """Return the tune part of a job; None where its fit split gives no document to tune on."""
        if id(job) not in self._parts:
            self._parts[id(job)] = self._made(job)
        return self._parts[id(job)]

    def _made(self, job: Job) -> TunePart | None:
        try:
            tune = halves(job.fit_documents[0])[1]
        except DlbenchError:  # whatever has to be fitted will say why
            return None
        documents = [tune[index] for index in sample([d.id for d in tune], DOCUMENTS)]
        if not documents:
            return None
        prompted = tokenise(job.engine, documents)
        batches = waves(prompted, most_rows(job.slots, len(documents), self.processes), self.processes)
        conditions = replace(job.conditions, documents_sha256=documents_sha256(documents))
        return TunePart(job, documents, conditions, batches)

    def decode(self, name: str, asked: Sequence[tuple[TunePart, Sequence[Setting]]]) -> None:
        """Decode settings on tune parts; when it returns, the first process knows their scores.

        Args:
            name: of the progress bar.
            asked: tune parts, each with settings that `TunePart.keyed` has given their keys.
        """
        self.store.samples_dir.mkdir(parents=True, exist_ok=True)
        amount = sum(total(part.batches, settings, self.process, self.processes) for part, settings in asked)
        in_time = True
        with self.progress.bar(name, amount) as done:
            for part, settings in asked:
                done(0, f"{part.job.conditions.task.name} · {part.job.engine.backbone.name}")
                in_time = in_time and self.runs(part.job, self.store).run(part.batches, settings, done)
        if not all(gather_object([in_time])):  # waits for the other processes
            raise Stopped(OVER)
        if self.process == 0:
            for part, settings in asked:
                keys = {setting.key for setting in settings}
                for key in keys:
                    self.store.merge(key, [d.id for d in part.documents])
                rescore(part.job.conditions.task, part.documents, self.store, sorted(keys))

    def is_whole(self, part: TunePart, setting: Setting) -> bool:
        """Return whether a setting has a sample of every document: not where its method failed."""
        return all(d.id in self.store.ids(setting.key) for d in part.documents)

    def mean(self, part: TunePart, setting: Setting) -> float:
        """Return the mean score of a setting that was decoded; in the first process only."""
        samples = self.store.samples(setting.key)
        return float(np.mean([samples[d.id].score for d in part.documents]))
