"""Measure how fast a backbone is at what fits do: read texts, write them, go back through them, look at exit heads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlbench.engine import Request
from dlbench.engine.flops.costs import Costs
from dlbench.fit import FitProbe
from dlbench.fit.kept_prompts import KeptPrompts
from dlbench.fit.open_loop import TraceView, confidence_key, is_plain_exit, shares
from dlbench.fit.probe import SLOTS
from dlbench.fit.references import BATCH, Trace
from dlbench.fit.tune import POINTS, ROUNDS
from dlbench.method import Method, Prompt
from dlbench.models.layer_patch import shadowed
from dlbench.prompting.teacher_forcing import Batch, Example, Parted, read_apart, read_targets

READ, PROMPT, WRITTEN = 96, 16, 6
"""Tokens per text that the speeds are measured on."""


Clock = Callable[[], float]
"""Seconds: of time, or of processor time."""


class Kind(Enum):
    """Kinds of passes, each with its own speed."""

    READ = "read"
    DECODE = "decode"
    TRAIN = "train"
    HEAD = "head"


@dataclass
class Speed:
    """FLOPs per second by kind of pass; each kind is measured when it is first asked for."""

    probe: FitProbe
    clock: Clock = time.perf_counter
    rates: dict[Kind, float] = field(default_factory=dict)

    @cached_property
    def step_seconds(self) -> float:
        """Seconds of a decode step beside what each row adds."""
        self.rates[Kind.DECODE], seconds = _decode(self.probe, self.clock)
        return seconds

    def seconds(self, flops: Mapping[Kind, float]) -> float:
        """Seconds that some work takes."""
        total = 0.0
        for kind, amount in flops.items():
            if amount:
                if kind is Kind.DECODE:
                    assert self.step_seconds >= 0  # measured together with the rate
                elif kind not in self.rates:
                    self.rates[kind] = _MEASURES[kind](self.probe, self.clock)
                total += amount / self.rates[kind]
        return total


def timed(work: Callable[[], Any], device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Return the seconds of some work, waiting for the device before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def _batch(probe: FitProbe, tokens: int, rows: int = BATCH) -> Batch:
    """Texts of exactly so many tokens, made of the fit documents' own."""
    ids = [id_ for _, request in probe.references.requests("tune") for id_ in request.ids]
    ids = (ids or [0]) * (1 + tokens * rows // max(1, len(ids)))
    tokens = min(tokens, probe.backbone.context)
    texts = [ids[i * tokens : (i + 1) * tokens] for i in range(rows)]
    return Batch.of([Example(text[:1], text[1:]) for text in texts]).to(probe.backbone.device)


def _body(probe: FitProbe, context: float) -> float:
    costs = Costs(probe.backbone)
    return float(costs.layer.sum() + costs.every_key * context)


@torch.no_grad()
def _read(probe: FitProbe, clock: Clock) -> float:
    batch = _batch(probe, READ)
    probe.references.forward(_batch(probe, 2), 1)  # the first forward prepares more than later ones
    length = batch.ids.shape[1]
    seconds = timed(lambda: probe.references.forward(batch, 1), probe.backbone.device, clock)
    return float(batch.ids.numel() * _body(probe, length) / seconds)


def _decode(probe: FitProbe, clock: Clock) -> tuple[float, float]:
    """FLOPs per second of the rows, and seconds of a step without rows: from steps of few and of many rows."""
    few, many = 2, max(8, min(SLOTS, len(probe.references.requests("tune"))))
    little, much = _step(probe, few, clock), _step(probe, many, clock)
    per_row = max((much - little) / (many - few), 0.1 * much / many)
    flops = _body(probe, PROMPT) + Costs(probe.backbone).head
    return flops / per_row, max(0.0, little - few * per_row)


def _step(probe: FitProbe, rows: int, clock: Clock) -> float:
    """Seconds of a decode step."""
    engine, batch = probe.engine(), _batch(probe, PROMPT, rows)
    new = min(WRITTEN, probe.backbone.context - batch.ids.shape[1])
    wave = engine.prefill([Request(str(i), tuple(ids), new) for i, ids in enumerate(batch.ids.tolist())])
    for _ in range(1 + engine.warm_ups):
        wave.decode()
    steps: list[int] = []
    seconds = timed(lambda: steps.extend(len(g.tokens) - 1 for g in wave.decode()), probe.backbone.device, clock)
    return seconds / max(1, *steps)


def _train(probe: FitProbe, clock: Clock) -> float:
    """Of targets after prompts, which are put together for each batch where they are kept: both of usual length."""
    references, backbone, kept = probe.references, probe.backbone, KeptPrompts()
    examples = references.examples()
    prompt, target = (round(median(len(e[part]) for e in examples)) for part in (0, 1))
    if not kept.can_keep(backbone, examples):
        prompt = 1  # they are read anew for each batch, and that is counted as reading
    texts = [Example(row[:prompt], row[prompt:]) for row in _batch(probe, prompt + target, 1).ids.tolist()]
    batch = Parted.of(texts * BATCH).to(backbone.device)

    def leaf(_: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        return forward(hidden.detach().requires_grad_(), *args, **kwargs)

    def step() -> None:
        layers = shadowed({0: backbone.layers[0]}, leaf)
        if prompt > 1:
            logits = read_targets(backbone, batch, kept.of(backbone, texts * BATCH)[0], layers)
        else:
            logits = read_apart(backbone, batch, nullcontext(), layers)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch.labels.flatten())
        loss.backward()  # type: ignore[no-untyped-call]

    if prompt > 1:
        kept.of(backbone, texts)
    step()
    seconds = timed(step, backbone.device, clock)
    return 2 * batch.ids.numel() * (_body(probe, prompt + batch.ids.shape[1]) + Costs(backbone).head) / seconds


@torch.no_grad()
def _head(probe: FitProbe, clock: Clock) -> float:
    dtype = next(probe.backbone.model.parameters()).dtype
    states = torch.randn(256, probe.width, dtype=torch.float32).to(probe.backbone.device, dtype)

    def look() -> None:
        probe.references.logits(states).float().softmax(-1).topk(2, dim=-1)

    look()
    return len(states) * Costs(probe.backbone).head / timed(look, probe.backbone.device, clock)


_MEASURES: dict[Kind, Callable[[FitProbe, Clock], float]] = {
    Kind.READ: _read,
    Kind.TRAIN: _train,
    Kind.HEAD: _head,
}


class RouteWork(NamedTuple):
    """What a method's decisions cost while its knob is tuned."""

    heads: float
    """Exit heads per token of the trace."""
    heads_per_token: float
    """Exit heads per layer that a decoded token runs."""
    seconds: float
    """Of the decisions themselves, along the curve."""


class _Counting(TraceView):
    """A view of a trace of zeros that counts the layers whose logits are looked at."""

    looks = 0

    def logits(self) -> Tensor:
        if self._logits is None:
            self.looks += 1
            self._logits = torch.zeros(1, 1).expand(len(self._trace.row), self.references.backbone.vocabulary)
        return self.rows(self._logits)

    def at_least(self, score: Tensor, threshold: float | Tensor) -> Tensor:
        return super().at_least(score.nan_to_num(), threshold)  # the cosine of zeros is not a number


def route_work(
    probe: FitProbe, method: Method, steps: Sequence[int], prompt: Prompt | None, corrections: int
) -> RouteWork:
    """Try a method's decisions on a trace of zeros.

    Args:
        probe: of the fit.
        method: its knob is set to its middle.
        steps: decode forwards of each text.
        prompt: states of the texts' prompts, where the method reads them.
        corrections: free-running corrections of the knob; each needs the curve again.
    """
    depth, exits = probe.depth, is_plain_exit(method)
    rows = np.repeat(np.arange(len(steps)), 1 if exits else steps)
    ones, keys = np.ones_like(rows), np.arange(len(steps)).astype(np.uint64)
    states = torch.zeros(1, 1, 1).expand(depth + 1, len(rows), probe.width)
    trace = Trace(states.to(probe.backbone.device), rows, 0 * ones, ones, 99 * ones, keys, 0, np.arange(len(steps)))
    view = _Counting(probe.references, trace)
    if is_plain_exit(method):
        everyone = np.ones(len(rows), dtype=bool)
        for layer in method.checked(depth):
            view.move(layer)
            view.show(everyone, np.full(len(rows), layer - 1), None)
            method.confidence(view)
        known = confidence_key(method) in probe.readings.confidences
        return RouteWork(0.0 if known else view.looks, view.looks / depth, 0.0)
    assert method.knob is not None
    middle = (method.knob.low + method.knob.high) / 2
    seconds = timed(lambda: shares(probe.references, method, trace, [middle], prompt, view), probe.backbone.device)
    curves = ROUNDS * (1 + corrections)
    return RouteWork(view.looks * curves, view.looks / depth, seconds * POINTS * curves)
