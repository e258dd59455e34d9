"""What a few documents of a task tell of the others: they are decoded to their end, as the run decodes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlbench.evaluation.generation import QualityRun
from dlbench.evaluation.settings import Setting, full
from dlbench.forecast.decoding import Lengths, between
from dlbench.forecast.speed import Clock
from dlbench.method import Method
from dlbench.prompting.tokenize import Prompted
from dlbench.records.run_folder import Store
from dlbench.registry import methods as registry
from dlbench.running.budgets import RULE
from dlbench.running.job import Job

COUNT = 4
"""Most documents of a task that are decoded."""


@dataclass(frozen=True)
class DocumentUse:
    """What a document does in one decoding: the mean of a few.

    Attributes:
        lengths: new tokens.
        flops: of a document, its prompt included where the layers of prompts are the method's.
        size: bytes of a sample in its file.
        seconds: of a document; where texts are written, the mean over the shares.
    """

    lengths: Lengths
    flops: float
    size: float
    seconds: float


@dataclass(frozen=True)
class FewDocuments:
    """Decodings of a few documents by the share of the layers that ran, full depth among them."""

    by_share: dict[float, DocumentUse]
    prompt_flops: float
    """Of reading a document's prompt at full depth."""

    def at(self, share: float) -> DocumentUse:
        """What a setting of a share of the layers does, between those that were measured."""

        def of(value: Callable[[DocumentUse], float]) -> float:
            return between(self.by_share, share, value)

        lengths = Lengths(of(lambda one: one.lengths.mean), of(lambda one: one.lengths.longest))
        return DocumentUse(lengths, of(lambda one: one.flops), of(lambda one: one.size), of(lambda one: one.seconds))


def decode_few(job: Job, folder: Path, clock: Clock, *, routed: bool, auto: bool) -> FewDocuments:
    """Decode a few of a job's documents at full depth, and evenly thinned to each of its budgets.

    Evenly thinned, since that needs no fit, and its texts grow longer as other methods' do where quality is lost.

    Args:
        job: of the run.
        folder: for the samples.
        clock: that they are timed by.
        routed: whether prompts run the method's layers only.
        auto: whether batches are split to fit the free memory.
    """
    store = Store(folder)
    store.samples_dir.mkdir(parents=True, exist_ok=True)
    documents = _spread([prompted for batch in job.batches for prompted in batch])
    run = QualityRun(job.engine, job.conditions.task, store, routed, job.conditions.kv, slots=job.slots, auto=auto)
    by_share: dict[float, DocumentUse] = {}
    settings = _settings(job)
    # texts are written by all settings after prompts that are read once
    apart = job.conditions.task.is_loglikelihood
    for group in [[one] for one in settings] if apart else [list(settings)]:
        start = clock()
        run.run([documents], [settings[share] for share in group], lambda _: None)
        seconds = (clock() - start) / len(group)
        by_share |= {share: _use(store, settings[share].key, seconds, routed=routed) for share in group}
    read = 0.0 if routed else np.mean([one.prompt_flops for one in store.samples(settings[1.0].key).values()])
    return FewDocuments(by_share, float(read))


def _use(store: Store, key: str, seconds: float, *, routed: bool) -> DocumentUse:
    """What a document of stored samples does."""
    samples = list(store.samples(key).values())
    count = len(samples)
    lengths = [sample.tokens.generated for sample in samples]
    flops = sum(sample.flops.total + (sample.prompt_flops if routed else 0) for sample in samples)
    size = sum(path.stat().st_size for path in store.samples_dir.glob(f"{key}.*"))
    return DocumentUse(Lengths(sum(lengths) / count, max(lengths)), flops / count, size / count, seconds / count)


def _spread(prompted: Sequence[Prompted]) -> list[Prompted]:
    """A few, from the shortest prompt to the longest."""
    places = np.linspace(0, len(prompted) - 1, min(COUNT, len(prompted)))
    return [prompted[round(place)] for place in places]


def _settings(job: Job) -> dict[float, Setting]:
    """The settings that are decoded, by their share of the layers."""
    rule = registry.load(RULE)
    assert issubclass(rule, Method)
    settings = {1.0: Setting("full", "full", full(), None)}
    for budget in job.budgets:
        plan = rule().at(budget, job.engine.backbone.depth)
        assert plan is not None  # it meets every budget in closed form
        settings[budget] = Setting(RULE, RULE, plan, budget)
    return {share: job.conditions.with_key(setting) for share, setting in settings.items()}
