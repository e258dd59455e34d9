"""What a method may use while it is fitted: the fit split of one task on one frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlbench.data.task import Document, Task
from dlbench.engine import Engine, Generation, Request, Wave
from dlbench.engine.flops.costs import Costs
from dlbench.engine.keyed_rng import key_of
from dlbench.errors import DlbenchError
from dlbench.fit import calibration
from dlbench.fit.router_training import train
from dlbench.method import Action, Method, Prompt, Router, Static, Text, Written
from dlbench.models.backbone import Backbone
from dlbench.models.exit_head import exit_head
from dlbench.prompting.teacher_forcing import Batch, Example, angles_of, example, shadowed, state_of
from dlbench.prompting.tokenize import limited_prompt

if TYPE_CHECKING:
    from dlbench.fit.open_loop import Trace

LEARN_SHARE = 0.7
TUNE_DOCUMENTS = 48
"""Most documents that a knob is tuned on."""
BATCH = 8
"""Texts of one forward."""
SLOTS = 48
"""Rows decoded together."""


def halves(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Documents to learn from and documents to tune on, parted by the hash of their ids."""
    learn = [d for d in documents if key_of(d.id) / 2**64 < LEARN_SHARE]
    chosen = {d.id for d in learn}
    return learn, [d for d in documents if d.id not in chosen][:TUNE_DOCUMENTS]


@dataclass(frozen=True)
class States:
    """States of prompts; see `dlbench.method.Prompt`."""

    depth: int
    count: int
    lasts: dict[int, Tensor]
    means: dict[int, Tensor]
    normed_means: dict[int, Tensor]

    def last(self, layer: int) -> Tensor:
        return self.lasts[layer]

    def mean(self, layer: int) -> Tensor:
        return self.means[layer]

    def normed_mean(self, layer: int) -> Tensor:
        return self.normed_means[layer]


@dataclass
class Readings:
    """What fits on one task and backbone have in common, and need not compute again one after the other."""

    requests: dict[str, list[tuple[Document, Request]]] = field(default_factory=dict)
    """Documents and their prompts' token ids, by part."""
    engine: Engine | None = None
    waves: tuple[frozenset[int], list[Wave]] | None = None
    """Prompts to tune on as they were read last, and the layers whose states were kept."""
    trace: tuple[int, Trace | None] | None = None
    """References to tune on as they were passed through last, and the seed that drew them."""


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
    """Policy of free-running texts; None takes a method's own."""
    say: Callable[[int, int], None] = lambda done, steps: None
    tokens: int = 0
    """Tokens that went through the backbone, forward."""
    readings: Readings = field(default_factory=Readings)
    prompt: Literal["full", "routed"] = "full"
    """Whether prompts run at full depth, or as static and per-sequence methods say, which then route them too."""
    _waves: dict[tuple[str, frozenset[int]], list[Wave]] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return self.backbone.depth

    @property
    def width(self) -> int:
        return self.backbone.width

    def ids(self, part: str) -> list[str]:
        return [d.id for d in self.documents(part)]

    def documents(self, part: str) -> list[Document]:
        """Documents of a part whose prompt and new tokens fit the context."""
        return [document for document, _ in self._requests(part)]

    def _requests(self, part: str) -> list[tuple[Document, Request]]:
        """Documents of a part with their prompts' token ids, where both fit the context."""
        known = self.readings.requests
        if part not in known:
            found = []
            for d in self.learn if part == "learn" else self.tune:
                ids = limited_prompt(self.backbone, d, self.backbone.encode(d.prompt))
                if len(ids) + d.limit <= self.backbone.context:
                    found.append((d, Request(d.id, tuple(ids), d.limit, d.stop, d.thinking)))
            known[part] = found
        return known[part]

    # ---- under teacher forcing

    def examples(self, part: str = "learn") -> list[Example]:
        """One reference of every document, drawn by the seed, where it has a token to decode.

        Raises:
            DlbenchError: there is none.
        """
        every = self.examples_of(self.learn if part == "learn" else self.tune)
        found = [e for e in every if len(e.target) > 1]  # the first target is full depth
        if not found:
            raise DlbenchError("the fit split gives nothing to learn from: no reference of two tokens fits the context")
        return found

    def examples_of(self, documents: Sequence[Document]) -> list[Example]:
        """One reference of each document, drawn by the seed."""
        order = np.random.default_rng(self.seed)
        return [example(self.backbone, d, int(order.integers(len(d.references)))) for d in documents]

    def batches(self, part: str = "learn", texts: int | None = None) -> Iterator[Batch]:
        """The same, or the first of them, some at a time."""
        for examples in self.several(part, texts):
            batch = Batch.of(examples).to(self.backbone.device)
            self.tokens += int(batch.mask.sum())
            yield batch

    def several(self, part: str, texts: int | None) -> Iterator[list[Example]]:
        """Examples of a part, or the first of them, some of similar length at a time."""
        examples = sorted(self.examples(part)[:texts], key=lambda e: len(e.prompt) + len(e.target))
        for i in range(0, len(examples), BATCH):
            yield examples[i : i + BATCH]

    def forward(self, batch: Batch) -> Tensor:
        """Logits of a batch: [rows, positions, vocabulary]."""
        with angles_of(self.backbone, batch):
            out = self.backbone.model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
        found: Tensor = out.logits
        return found

    def texts(self, part: str = "learn") -> Iterator[Text]:
        for batch in self.batches(part):
            yield self.text(batch)

    @torch.no_grad()
    def text(self, batch: Batch) -> Text:
        """States of a batch's decode forwards at full depth."""
        states: list[Tensor] = []
        chosen = batch.routed.bool()

        def around(index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            states.append(hidden[chosen])
            given = forward(hidden, *args, **kwargs)
            if index == self.depth - 1:
                states.append(state_of(given)[chosen])
            return given

        with shadowed(dict(enumerate(self.backbone.layers)), around):
            self.forward(batch)
        return Text(tuple(states), lambda layer: self.logits(states[layer]))

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        """The exit head: [n, width] -> [n, vocabulary]."""
        return exit_head(self.backbone, states)

    def similarity(self, part: Action) -> list[float]:
        return calibration.similarity(self, part)

    def cost(self, layer: int, part: Action) -> float:
        return float(Costs(self.backbone).shares[int(part), layer])

    def nll(self, method: Static, texts: int | None = None) -> float:
        return calibration.nll(self, method, texts)

    def train(self, router: Router, **options: Any) -> list[float]:
        return train(self, router, **options)

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
        found: list[Written] = []
        for document, generation in self._written(method, part):
            text = self.backbone.text(generation.tokens, document.thinking)
            score = self.task.score(document, text)[self.task.metric]
            found.append(Written(document.id, text, score, self._share(generation)))
        return found

    def realised(self, method: Method) -> float:
        """Mean layer share of the texts that a method writes for the documents to tune on."""
        return float(np.mean([self._share(generation) for _, generation in self._written(method, "tune")]))

    def _written(self, method: Method | None, part: str) -> Iterator[tuple[Document, Generation]]:
        kv = self.kv if method is not None and self.kv in method.kv else None
        documents = iter(self.documents(part))
        for wave in self._waves_for(method, part):
            for generation in wave.decode(method, seed=self.seed, kv=kv):
                self.tokens += len(generation.tokens)
                yield next(documents), generation

    def _share(self, generation: Generation) -> float:
        return float(np.mean(generation.layers)) / self.depth if generation.layers else 1.0

    def likeness(self, text: str, other: str) -> float:
        from dlbench.tasks.metrics import rouge

        return rouge(text, [other])["rougeL"]

    def _waves_for(self, method: Method | None, part: str) -> Iterator[Wave]:
        """The prompts of a part, read as the policy wants it for a method."""
        reads = frozenset() if method is None else method.reads(self.depth)
        if self.prompt == "full" or method is None or method.scope == "token" or reads:
            yield from self._prefilled(part, reads)
            return
        engine, requests = self._engine(), self._prompts_of(part)
        for i in range(0, len(requests), SLOTS):
            yield engine.prefill(requests[i : i + SLOTS], method, self.seed)

    def _prefilled(self, part: str, reads: frozenset[int]) -> list[Wave]:
        """The prompts of a part, read at full depth, once for all that will write from them.

        Raises:
            DlbenchError: no document fits the context.
        """
        if (part, reads) not in self._waves:
            self._waves[part, reads] = self._read(self._prompts_of(part), part, reads)
        return self._waves[part, reads]

    def _prompts_of(self, part: str) -> list[Request]:
        """The prompts of a part, which will be read.

        Raises:
            DlbenchError: none fits the context.
        """
        made = [request for _, request in self._requests(part)]
        if not made:
            raise DlbenchError("the fit split gives nothing to tune on: no prompt fits the context with its new tokens")
        self.tokens += sum(len(r.ids) for r in made)
        return made

    def _engine(self) -> Engine:
        self.readings.engine = self.readings.engine or Engine(self.backbone, metered=False)
        return self.readings.engine

    def _read(self, requests: Sequence[Request], part: str, reads: frozenset[int]) -> list[Wave]:
        known = self.readings
        if part == "tune" and known.waves is not None and known.waves[0] == reads:
            return known.waves[1]
        engine = self._engine()
        if part == "tune":
            known.waves = None  # their memory is needed
        waves = [engine.prefill(requests[i : i + SLOTS], reads=reads) for i in range(0, len(requests), SLOTS)]
        if part == "tune":
            known.waves = reads, waves
        return waves
