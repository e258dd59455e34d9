"""The fit split of one task on one frozen backbone, as methods see it while they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Unpack

import numpy as np
import torch

from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.engine import Engine, Generation, Request, Wave
from dlbench.engine.flops.costs import Costs
from dlbench.errors import DlbenchError
from dlbench.fit import calibration
from dlbench.fit.kept_prompts import States
from dlbench.fit.references import Readings, References
from dlbench.fit.router_training import TrainingOptions, train
from dlbench.method import Action, Method, Prompt, Router, Static, Text, Written
from dlbench.method.base import TrainOptions
from dlbench.models.backbone import Backbone

SLOTS = 48
"""Rows decoded together."""


@dataclass
class FitProbe:
    """See `dlbench.method.Probe`; the backbone stays frozen."""

    backbone: Backbone
    task: Task
    learn: Sequence[Document]
    tune: Sequence[Document]
    seed: int = 0
    budget: float | None = None
    kv: str | None = None
    """KV policy of free-running texts; None takes a method's own."""
    say: Callable[[int, int], None] = lambda done, steps: None
    readings: Readings = field(default_factory=Readings)
    prompt: Literal["full", "routed"] = "full"
    """Whether prompts run at full depth, or are routed too by methods with a static or per-sequence scope."""
    references: References = field(init=False)
    """The same documents under teacher forcing."""
    _free_tokens: int = 0
    """Prompt and new tokens of free-running texts."""
    _waves: dict[str, tuple[frozenset[int], list[Wave]]] = field(default_factory=dict)
    """Prefilled prompts of each part, and the layers whose states were kept."""

    def __post_init__(self) -> None:
        self.references = References(self.backbone, self.learn, self.tune, self.seed, self.readings)

    @property
    def depth(self) -> int:
        return self.backbone.depth

    @property
    def width(self) -> int:
        return self.backbone.width

    @property
    def tokens(self) -> int:
        """Tokens that went through the backbone, forward."""
        return self._free_tokens + self.references.tokens

    def ids(self, part: str) -> list[str]:
        return [d.id for d in self.documents(part)]

    def documents(self, part: str) -> list[Document]:
        """Documents of a part whose prompt and new tokens fit the context."""
        return self.references.documents(part)

    # ---- under teacher forcing

    def texts(self, part: str = "learn") -> Iterator[Text]:
        return self.references.texts(part)

    def similarity(self, part: Action) -> list[float]:
        return calibration.similarity(self.references, part)

    def cost(self, layer: int, part: Action) -> float:
        return float(Costs(self.backbone).shares[int(part), layer])

    def nll(self, method: Method, texts: int | None = None) -> float:
        if not isinstance(method, Static):
            raise TypeError(f"nll takes a static plan, not {type(method).__name__}")
        return calibration.nll(self.references, method, self.prompt, texts)

    def train(self, router: Method, **options: Unpack[TrainOptions]) -> list[float]:
        if not isinstance(router, Router):
            raise TypeError(f"train takes a Router, not {type(router).__name__}")
        return train(self.references, router, TrainingOptions(**options), self.say)

    # ---- free-running

    def prompts(self, layers: Sequence[int], part: str = "learn") -> Prompt:
        waves = self._prefilled(part, frozenset(layers))
        return States(
            self.depth,
            sum(len(w.requests) for w in waves),
            {i: torch.cat([w.states.last(i) for w in waves]) for i in layers},
            {i: torch.cat([w.states.mean(i) for w in waves]) for i in layers},
            {i: torch.cat([w.states.normed_mean(i) for w in waves]) for i in layers},
        )

    def run(self, method: Method | None, part: str = "tune") -> list[Written]:
        written: list[Written] = []
        for document, generation in self._generate(method, part):
            text = self.backbone.text(generation.tokens, document.thinking)
            score = self.task.score(document, text)[self.task.metric]
            written.append(Written(document.id, text, score, self._share(generation)))
        return written

    def realised(self, method: Method) -> float:
        """Mean layer share of the texts that a method generates for the documents to tune on."""
        return float(np.mean([self._share(generation) for _, generation in self._generate(method, "tune")]))

    def likeness(self, text: str, other: str) -> float:
        from dlbench.tasks.metrics import rouge

        return rouge(text, [other])["rougeL"]

    def _generate(self, method: Method | None, part: str) -> Iterator[tuple[Document, Generation]]:
        kv = self.kv if method is not None and self.kv in method.kv else None
        documents = iter(self.documents(part))
        for wave in self._waves_for(method, part):
            for generation in wave.decode(method, seed=self.seed, kv=kv):
                self._free_tokens += len(generation.tokens)
                yield next(documents), generation

    def _share(self, generation: Generation) -> float:
        return float(np.mean(generation.layers)) / self.depth if generation.layers else 1.0

    def _waves_for(self, method: Method | None, part: str) -> Iterator[Wave]:
        """The prefilled prompts of a part: at full depth, or routed by the method where the prompt policy says so."""
        reads = frozenset() if method is None else method.reads(self.depth)
        if self.prompt == "full" or method is None or method.scope == "token" or reads:
            yield from self._prefilled(part, reads)
            return
        engine, requests = self.engine(), self._prompts_of(part)
        for i in range(0, len(requests), SLOTS):
            yield engine.prefill(requests[i : i + SLOTS], method, self.seed)

    def _prefilled(self, part: str, reads: frozenset[int]) -> list[Wave]:
        """The prompts of a part, prefilled at full depth once for all methods that decode from them.

        Raises:
            DlbenchError: no document fits the context.
        """
        read = self._waves[part][0] if part in self._waves else None
        if read is None or not reads <= read:
            wanted = reads | self.readings.reads | (read or frozenset())
            self._waves[part] = wanted, self._prefill(self._prompts_of(part), part, wanted)
        return self._waves[part][1]

    def _prompts_of(self, part: str) -> list[Request]:
        """The prompts of a part, counted as read.

        Raises:
            DlbenchError: none fits the context.
        """
        requests = [request for _, request in self.references.requests(part)]
        if not requests:
            raise DlbenchError("the fit split gives nothing to tune on: no prompt fits the context with its new tokens")
        self._free_tokens += sum(len(r.ids) for r in requests)
        return requests

    def engine(self) -> Engine:
        """Decodes free-running texts; made on first use, once for all fits that share the readings."""
        self.readings.engine = self.readings.engine or Engine(self.backbone, metered=False)
        return self.readings.engine

    def _prefill(self, requests: Sequence[Request], part: str, reads: frozenset[int]) -> list[Wave]:
        known = self.readings
        if part == "tune":
            if known.waves is not None and reads <= known.waves[0]:
                return known.waves[1]
            known.waves = None  # free their memory first
        engine = self.engine()
        waves = [engine.prefill(requests[i : i + SLOTS], reads=reads) for i in range(0, len(requests), SLOTS)]
        if part == "tune":
            known.waves = reads, waves
        return waves
