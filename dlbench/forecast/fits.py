"""Foretell what a fit costs: rehearse it on a probe that counts what it is asked for, priced by measured speeds.

A rehearsal calls the method's own `fit`, with states of zeros and texts that were not written, so that a plugin has a
forecast too. What earlier fits have left in the readings is not counted again, nor what earlier rehearsals read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from dlbench.engine.flops.costs import Costs
from dlbench.fit import FitProbe
from dlbench.fit.kept_prompts import States
from dlbench.fit.open_loop import confidence_key, is_plain_exit
from dlbench.fit.probe import SLOTS
from dlbench.fit.references import BATCH
from dlbench.forecast.speed import Kind, Speed, route_work
from dlbench.method import Action, Method, Prompt, Router, Static, Text, Written
from dlbench.prompting.teacher_forcing import Example

CORRECTIONS = 3
"""Free-running corrections of a knob that are foretold, of at most `fit.tune.RUNS`; without a curve twice as many."""

Part = str


@dataclass
class Work:
    """Tokens that go through the backbone, and FLOPs, by kind of pass; seconds of everything else."""

    tokens: float = 0.0
    flops: dict[Kind, float] = field(default_factory=lambda: dict.fromkeys(Kind, 0.0))
    steps: float = 0.0
    """Decode steps, whatever the number of rows, in those of full depth."""
    seconds: float = 0.0
    """Of what is no pass through the backbone."""

    def add(self, kind: Kind, tokens: float, flops: float) -> None:
        """Add tokens, each of so many FLOPs; tokens that only go through the exit head do not count as such."""
        self.tokens += 0 if kind is Kind.HEAD else tokens
        self.flops[kind] += tokens * flops

    def price(self, speed: Speed) -> float:
        """Seconds of all of it."""
        return speed.seconds(self.flops) + self.steps * speed.step_seconds + self.seconds


@dataclass(frozen=True)
class Forecast:
    """What a fit will cost."""

    tokens: int
    flops: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.tokens:,} tokens, {self.flops / 1e12:,.1f} TFLOPs, about {duration(self.seconds)}"


def duration(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


@dataclass
class Rehearsed:
    """What rehearsals of fits on common readings have read so far, beside what the readings hold."""

    prefilled: set[Part] = field(default_factory=set)
    similar: set[tuple[int, Action]] = field(default_factory=set)
    """Seeds of the references, and parts of the layers."""
    kept: set[tuple[int, ...]] = field(default_factory=set)
    """Token ids of prompts."""
    traced: set[int] = field(default_factory=set)
    """Seeds of the references."""
    confidences: set[str] = field(default_factory=set)
    """Of exits, by the parameters that they depend on."""


def forecast(
    probe: FitProbe,
    speed: Speed,
    method: Method,
    budget: float | None,
    *,
    learns: bool,
    before: Rehearsed | None = None,
) -> tuple[Forecast, Method] | None:
    """Foretell a fit.

    Args:
        probe: that it will be made with.
        speed: of the backbone.
        method: with its parameters before the fit; a copy is rehearsed.
        budget: that its knob is tuned to; None for a fit without one.
        learns: whether it learns, or only its knob is tuned.
        before: what fits that will have been made by then have read; this one's is added. None: there are none.

    Returns:
        What it costs, and the copy, which has learnt from zeros; None where the method cannot be rehearsed.
    """
    rehearsal = Rehearsal(probe, Costs(probe.backbone), before or Rehearsed())
    copy = type(method).from_params(method.params())
    try:
        if learns:
            copy.fit(rehearsal)
        else:
            copy.load_weights(method.weights())
        if budget is not None and copy.knob is not None:
            rehearsal.tune(copy, budget)
        work = rehearsal.work
        return Forecast(round(work.tokens), sum(work.flops.values()), work.price(speed)), copy
    except Exception:  # of a plugin that does not take zeros for states; what else is wrong, the fit itself will tell
        return None


class Rehearsal:
    """Implements `dlbench.method.Probe`: computes nothing, and adds up what it would cost."""

    def __init__(self, probe: FitProbe, costs: Costs, before: Rehearsed) -> None:
        self.probe, self.costs, self.work, self._before = probe, costs, Work(), before
        self.depth, self.width, self.seed, self.budget = probe.depth, probe.width, probe.seed, probe.budget
        self._known = probe.readings
        if self._known.waves is not None:
            before.prefilled.add("tune")
        before.similar.update(self._known.similarity)
        self.body = float(costs.layer.sum())

    # ---- lengths

    @cached_property
    def _learn(self) -> list[Example]:
        return self.probe.references.examples()

    @cached_property
    def _tune(self) -> list[Example]:
        references = self.probe.references
        return [e for e in references.examples_of(references.documents("tune")) if len(e.target) > 1]

    def _examples(self, part: Part) -> list[Example]:
        return self._learn if part == "learn" else self._tune

    def _token(self, context: float, share: float = 1.0) -> float:
        """FLOPs of a token in the layers."""
        return float(share * (self.body + self.costs.every_key * context))

    def _read(self, examples: Sequence[Example], share: float = 1.0) -> None:
        """Whole texts, read under teacher forcing."""
        padding = _padding([len(e.prompt) + len(e.target) for e in examples], BATCH)
        for e in examples:
            length = len(e.prompt) + len(e.target)
            self.work.add(Kind.READ, length, padding * self._token(length, share))

    # ---- what a method may ask for

    def ids(self, part: Part) -> list[str]:
        return self.probe.ids(part)

    def texts(self, part: Part = "learn") -> Iterator[Text]:
        examples = self._examples(part)
        self._read(examples)
        states = tuple(torch.zeros(2, self.width) for _ in range(self.depth + 1))
        yield Text(states, lambda layer: self._logits(sum(len(e.target) - 1 for e in examples)))

    def _logits(self, count: int) -> Tensor:
        self.work.add(Kind.HEAD, count, self.costs.head)
        return torch.zeros(1, 1).expand(2, self.probe.backbone.vocabulary)

    def similarity(self, part: Action) -> list[float]:
        similar = self._before.similar
        if (self.seed, part) not in similar:
            again = 0.0 if part == Action.RUN else float(self.costs.parts[int(Action.ATTN)].sum()) / self.body
            parts = (Action.RUN,) if part == Action.RUN else (Action.ATTN, Action.MLP)
            similar.update((self.seed, one) for one in parts)
            self._read(self._learn, 1 + again)
        return [0.0] * self.depth

    def cost(self, layer: int, part: Action) -> float:
        return self.probe.cost(layer, part)

    def nll(self, method: Method, texts: int | None = None) -> float:
        assert isinstance(method, Static)
        examples = self._learn[:texts]
        share = self._share(method)
        if self.probe.prompt == "routed":
            self._read(examples, share)
        else:
            self._prompts(examples, None)
            self._targets(Kind.READ, examples, 1, share)
        return 0.0

    def prompts(self, layers: Sequence[int], part: Part = "learn") -> Prompt:
        self._prefill(part)
        count = len(self.probe.documents(part))
        states = {layer: torch.zeros(count, self.width) for layer in layers}
        return States(self.depth, count, states, states, states)

    def run(self, method: Method | None, part: Part = "tune") -> list[Written]:
        share = 1.0 if method is None else self._share(method)
        self._decode(part, share, 0, method is not None, static=isinstance(method, Static))
        return [Written(document.id, "", 0.0, share) for document in self.probe.documents(part)]

    def likeness(self, text: str, other: str) -> float:
        return 1.0

    def train(self, router: Method, **options: Any) -> list[float]:
        assert isinstance(router, Router)
        router.module(self.depth, self.width)
        steps, rows = int(options["steps"]), min(BATCH, len(self._learn))
        self._prompts(self._learn, steps * rows)
        self._targets(Kind.TRAIN, self._learn, steps * rows / len(self._learn), 1.0, 2.0)
        return [0.0] * steps

    def say(self, done: int, steps: int) -> None:
        pass

    def tune(self, method: Method, budget: float) -> None:
        """Set a knob: a reading of the references, the open-loop curve, and some free-running corrections."""
        known, runs, checks = self._known, 2 * CORRECTIONS, 0.0
        if not (method.batch_dependent or method.uses_future) and self._tune:
            runs = CORRECTIONS
            if (known.trace is None or known.trace[0] != self.seed) and self.seed not in self._before.traced:
                self._read(self._tune)
            self._before.traced.add(self.seed)
            reads = sorted(method.reads(self.depth))
            prompt = self.prompts(reads, "tune") if reads else None
            steps = [len(e.target) - 1 for e in self._tune]
            route = route_work(self.probe, method, steps, prompt, runs)
            checks, heads = route.heads_per_token, route.heads
            if is_plain_exit(method):
                heads = 0.0 if (key := confidence_key(method)) in self._before.confidences else heads
                self._before.confidences.add(key)
            self.work.add(Kind.HEAD, heads * sum(steps), self.costs.head)
            self.work.seconds += route.seconds
        for _ in range(runs):
            self._decode("tune", budget, checks, static=isinstance(method, Static))

    # ---- passes

    def _share(self, method: Method) -> float:
        if isinstance(method, Static):
            parts = self.costs.parts
            actions = method.actions(self.depth)
            return sum(float(parts[int(action), layer]) for layer, action in enumerate(actions)) / self.body
        return self.budget or 0.75

    def _prompts(self, examples: Sequence[Example], drawn: int | None) -> None:
        """Prompts before decode forwards: read once where they are kept, else as often as they are drawn."""
        references = self.probe.references
        if references.keeps(examples, drawn):
            kept = self._before.kept
            new = [e for e in self._known.prompts.missing(examples) if tuple(e.prompt) not in kept]
            kept |= {tuple(e.prompt) for e in examples}
            times = 1.0
        else:
            new, times = list(examples), 1.0 if drawn is None else drawn / len(examples)
        padding = _padding([len(e.prompt) for e in new], BATCH)
        for e in new:
            self.work.add(Kind.READ, times * len(e.prompt), padding * self._token(len(e.prompt)))

    def _targets(
        self, kind: Kind, examples: Sequence[Example], times: float, share: float, passes: float = 1.0
    ) -> None:
        """Decode forwards under teacher forcing, forward or forward and back."""
        # a forward of few tokens takes as long as the weights are read
        self.work.steps += passes * times * -(-len(examples) // BATCH) * share
        passes *= _padding([len(e.target) - 1 for e in examples], BATCH)
        for e in examples:
            flops = self._token(len(e.prompt) + len(e.target), share) + self.costs.head
            self.work.add(kind, times * (len(e.target) - 1), passes * flops)

    def _prefill(self, part: Part) -> None:
        if part not in self._before.prefilled:
            self._before.prefilled.add(part)
            prompts = [len(request.ids) for _, request in self.probe.references.requests(part)]
            padding = _padding(prompts, SLOTS)
            for length in prompts:
                self.work.add(Kind.READ, length, padding * self._token(length))

    def _decode(self, part: Part, share: float, checks: float, changed: bool = True, *, static: bool = False) -> None:
        """Free-running texts.

        Args:
            part: whose prompts are continued.
            share: of the layers that run.
            checks: exit heads per layer that runs.
            changed: whether layers are left out: then texts may run on to their limit, and half way is taken.
            static: whether all rows leave out the same layers, which nothing has learnt: then they do run on.
        """
        self._prefill(part)
        references = self.probe.references
        lengths = [len(e.target) for e in references.examples_of(references.documents(part))]
        written = []
        for (_, request), length in zip(references.requests(part), lengths, strict=True):
            longest = request.limit if changed and share < 1 else min(length, request.limit)
            tokens = float(longest) if static else (min(length, request.limit) + longest) / 2
            written.append(longest)
            self.work.add(Kind.DECODE, tokens, self._token(len(request.ids) + tokens, share) + self.costs.head)
            self.work.add(Kind.HEAD, tokens * checks * share * self.depth, self.costs.head)
        # a step takes as long as its layers are read, and a layer is read that any row runs
        steps = sum(max(written[i : i + SLOTS]) for i in range(0, len(written), SLOTS))
        self.work.steps += steps * (share if static else 1.0)


def _padding(lengths: Sequence[int], together: int) -> float:
    """Padded positions per token, where so many texts form a batch."""
    batches = [lengths[i : i + together] for i in range(0, len(lengths), together)]
    return sum(len(batch) * max(batch) for batch in batches) / max(1, sum(lengths))
