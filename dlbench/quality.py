"""The quality run: decode every setting on every document of a task, wave by wave, and keep each sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dlbench.engine import Engine, Generation, Request, Wave
from dlbench.engine.meter import CATEGORIES
from dlbench.errors import DlbenchError
from dlbench.plan import Setting
from dlbench.records import Flops, Sample, Tokens
from dlbench.store import Store
from dlbench.task import Document, Task


@dataclass(frozen=True)
class Prompted:
    """A document with its prompt as token ids."""

    document: Document
    request: Request
    truncated: bool


def tokenise(engine: Engine, documents: Sequence[Document]) -> list[Prompted]:
    """Prompts as token ids. One that does not fit the context loses its beginning and is marked as truncated.

    Raises:
        DlbenchError: the model's tokenizer begins a text twice, or the context cannot hold the new tokens.
    """
    backbone = engine.backbone
    bos = backbone.tokenizer.bos_token_id
    prompted = []
    for document in documents:
        ids = list(backbone.tokenizer(document.prompt)["input_ids"])
        if bos is not None and ids[:2] == [bos, bos]:
            raise DlbenchError(f"document {document.id}: the prompt begins with two begin-of-text tokens; give it one")
        room = backbone.context - document.limit
        if room < 1:
            raise DlbenchError(
                f"model {backbone.name!r} has a context of {backbone.context} tokens; task limit {document.limit} "
                "leaves no room for a prompt"
            )
        cut = len(ids) > room
        if cut:
            ids = ids[:1] * (ids[0] == bos) + ids[len(ids) - room + (ids[0] == bos) :]
        prompted.append(Prompted(document, Request(document.id, tuple(ids), document.limit, document.stop), cut))
    return prompted


def waves(prompted: Sequence[Prompted], size: int) -> list[list[Prompted]]:
    """Batches of prompts of similar length: little padding, and the same batches whatever the number of processes."""
    ordered = sorted(prompted, key=lambda p: (len(p.request.ids), p.document.index))
    return [ordered[i : i + size] for i in range(0, len(ordered), size)]


@dataclass
class QualityRun:
    """Decodes the settings of one backbone and task."""

    engine: Engine
    task: Task
    store: Store
    seed: int
    routed: bool
    process: int = 0
    processes: int = 1

    def run(self, batches: Sequence[list[Prompted]], settings: Sequence[Setting], done: Callable[[int], None]) -> None:
        """Decode what is missing.

        Args:
            batches: all waves; this process takes every `processes`-th.
            settings: what to decode each of them with.
            done: told the number of documents × settings that are finished, as they finish.
        """
        for index, batch in enumerate(batches):
            if index % self.processes != self.process:
                continue
            missing = [s for s in settings if any(p.document.id not in self.store.samples(s.key) for p in batch)]
            done(len(batch) * (len(settings) - len(missing)))
            if missing:
                self._wave(batch, missing, done)

    def _wave(self, batch: list[Prompted], settings: Sequence[Setting], done: Callable[[int], None]) -> None:
        shared: Wave | None = None
        finished: dict[Any, list[Generation]] = {}
        for setting in settings:
            alike = setting.alike(self.engine.backbone.depth)
            generations = finished.get(alike) if alike is not None else None
            if generations is None:
                if self.routed:
                    wave = self._prefill(batch, setting)
                else:
                    wave = shared = shared or self._prefill(batch, None)
                method = None if setting.name == "full" else setting.method
                generations = wave.decode(method, seed=self.seed, sample=setting.sample)
                if alike is not None:
                    finished[alike] = generations
            samples = (self._sample(p, g) for p, g in zip(batch, generations, strict=True))
            known = self.store.samples(setting.key)
            self.store.append(setting.key, self.process, [s for s in samples if s.id not in known])
            done(len(batch))

    def _prefill(self, batch: list[Prompted], setting: Setting | None) -> Wave:
        method = None if setting is None or setting.name == "full" else setting.method
        return self.engine.prefill([p.request for p in batch], method, self.seed)

    def _sample(self, prompted: Prompted, generation: Generation) -> Sample:
        backbone, document = self.engine.backbone, prompted.document
        text = backbone.tokenizer.decode(generation.tokens, skip_special_tokens=True)
        scores = dict(self.task.score(document, text))
        score = scores.pop(self.task.metric)
        return Sample(
            id=document.id,
            output=text,
            score=score,
            scores=scores,
            layers=tuple(float(n) for n in generation.layers),
            truncated=prompted.truncated,
            tokens=Tokens(prompt=len(prompted.request.ids), generated=len(generation.tokens)),
            flops=Flops(**{c: generation.flops[c] for c in CATEGORIES}),
            prompt_flops=generation.prompt_flops,
            executed_flops=generation.executed,
            tight=tuple(generation.tight),
        )


def total(batches: Sequence[list[Prompted]], settings: Sequence[Setting], process: int, processes: int) -> int:
    """Documents × settings that fall to one process."""
    return sum(len(b) for i, b in enumerate(batches) if i % processes == process) * len(settings)
