"""What a method would do on given texts: its share for any value of its knob, from one pass under teacher forcing.

The states are those of full depth, whatever the method answers: an open loop. For exits it is what free decoding
gives on the same text; for skips the later states would differ. So the curve is where tuning starts, not where it ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlbench.engine import keyed_rng
from dlbench.engine.flops.costs import Costs
from dlbench.method import Action, Method, Prompt, Route, View
from dlbench.prompting.teacher_forcing import Batch

if TYPE_CHECKING:
    from dlbench.fit.probe import FitProbe

Flags = NDArray[np.bool_]


@dataclass
class Trace:
    """Decode forwards of references at full depth, n tokens."""

    states: Tensor
    """[depth + 1, n, width]"""
    row: NDArray[np.int64]
    """Which text each token is of: [n]."""
    step: NDArray[np.int64]
    position: NDArray[np.int64]
    limit: NDArray[np.int64]
    keys: keyed_rng.Words
    """A word of noise per text."""
    tokens: int
    """That went through the backbone."""

    @property
    def texts(self) -> int:
        return len(self.keys)


def record(probe: FitProbe) -> Trace | None:
    """Pass the references to tune on through the backbone once; documents that cannot be written freely are left out.

    Returns:
        None where no reference has a token to decode.
    """
    if probe.readings.trace is None or probe.readings.trace[0] != probe.seed:
        probe.readings.trace = probe.seed, _record(probe)
    _, trace = probe.readings.trace
    if trace is not None:
        probe.tokens += trace.tokens
    return trace


def _record(probe: FitProbe) -> Trace | None:
    documents = {d.id: d for d in probe.documents("tune")}
    ids, examples = [], []
    for d, e in zip(documents.values(), probe.examples_of(list(documents.values())), strict=True):
        if len(e.target) > 1:
            ids.append(d.id)
            examples.append(e)
    if not examples:
        return None
    states, row, step, position, tokens = [], [], [], [], 0
    for first in range(0, len(examples), 8):
        several = examples[first : first + 8]
        batch = Batch.of(several).to(probe.backbone.device)
        tokens += int(batch.mask.sum())
        states.append(torch.stack(probe.text(batch).states))
        for i, e in enumerate(several):
            count = len(e.target) - 1
            row += [first + i] * count
            step += list(range(count))
            position += list(range(len(e.prompt), len(e.prompt) + count))
    limits = np.array([documents[i].limit for i in ids], dtype=np.int64)
    rows = np.array(row, dtype=np.int64)
    return Trace(
        torch.cat(states, 1),
        rows,
        np.array(step, dtype=np.int64),
        np.array(position, dtype=np.int64),
        limits[rows],
        np.array([keyed_rng.key_of(i) for i in ids], dtype=np.uint64),
        tokens,
    )


class TraceView(View):
    """What a method sees of a trace: all its tokens at once."""

    def __init__(self, probe: FitProbe, trace: Trace) -> None:
        self.depth, self._probe, self._trace = probe.depth, probe, trace
        self._logits: Tensor | None = None
        self._awake: Flags = np.ones(len(trace.row), dtype=bool)
        self._last: NDArray[np.int64] | None = None
        self._memory: Tensor | None = None

    def move(self, layer: int) -> None:
        """Stand before a layer."""
        self.layer, self._logits = layer, None

    def look(self, awake: Flags, last: NDArray[np.int64], memory: Tensor | None) -> None:
        """Show the tokens that have not exited; `last` layer that each one has run, `memory` of its text."""
        self._awake, self._last, self._memory = awake, last, memory

    def _pick(self, x: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(x[self._awake])

    def _mine(self, x: Tensor) -> Tensor:
        return x[torch.from_numpy(self._awake).to(x.device)]

    @property
    def hidden(self) -> Tensor:
        return self._mine(self._trace.states[self.layer])

    @property
    def before(self) -> Tensor | None:
        assert self._last is not None
        if (self._last < 0).all():
            return None
        states, last = self._trace.states, torch.from_numpy(self._last).to(self._trace.states.device)
        found = states[last.clamp(min=0), torch.arange(states.shape[1], device=states.device)]
        return self._mine(torch.where((last >= 0)[:, None], found, 0))

    @property
    def embedded(self) -> Tensor:
        return self._mine(self._trace.states[0])

    @property
    def row(self) -> Tensor:
        return self._pick(self._trace.row)

    @property
    def step(self) -> Tensor:
        return self._pick(self._trace.step)

    @property
    def position(self) -> Tensor:
        return self._pick(self._trace.position)

    @property
    def limit(self) -> Tensor:
        return self._pick(self._trace.limit)

    @property
    def memory(self) -> Tensor | None:
        return None if self._memory is None else self._memory[self.row.to(self._memory.device)]

    def logits(self) -> Tensor:
        if self._logits is None:
            self._logits = self._probe.logits(self._trace.states[self.layer])
        return self._mine(self._logits)

    def foreseen(self, layer: int) -> Tensor:
        return self._mine(self._probe.logits(self._trace.states[layer]).argmax(-1))

    def uniform(self, count: int = 1, per: Literal["layer", "token", "sequence"] = "layer") -> Tensor:
        trace, kind = self._trace, {"layer": 0, "token": 1, "sequence": 2}[per]
        rows, steps = trace.row[self._awake], trace.step[self._awake]
        counters = {"layer": (steps, self.layer), "token": (steps,), "sequence": ()}[per]
        return torch.from_numpy(keyed_rng.uniform(trace.keys[rows], count, self._probe.seed, kind, *counters))

    def at_least(self, score: Tensor, threshold: float | Tensor) -> Tensor:
        return score >= (threshold.to(score.device) if isinstance(threshold, Tensor) else threshold)


@torch.inference_mode()
def shares(
    probe: FitProbe, method: Method, trace: Trace, values: Sequence[float], prompt: Prompt | None = None
) -> list[float]:
    """Layer share of a method in the open loop for each value of its knob: mean over texts of the mean over tokens.

    Args:
        probe: has the backbone.
        method: its knob is left at the last value.
        trace: the texts.
        values: of the knob.
        prompt: states of the texts' prompts, where `begin` reads them.
    """
    assert method.knob is not None
    costs, n = Costs(probe.backbone), len(trace.row)
    view = TraceView(probe, trace)
    awake = [np.ones(n, dtype=bool) for _ in values]
    last = [np.full(n, -1, dtype=np.int64) for _ in values]
    calls = [np.zeros(n) for _ in values]
    memory: list[Tensor | None] = []
    for value in values:
        setattr(method, method.knob.name, value)
        memory.append(None if prompt is None else method.begin(prompt))
    for layer in range(probe.depth):
        view.move(layer)
        for i, value in enumerate(values):
            if not awake[i].any():
                continue
            setattr(method, method.knob.name, value)
            view.look(awake[i], last[i], memory[i])
            codes = np.zeros(n, dtype=np.int64)
            codes[awake[i]] = _codes(method, view)
            for part in (Action.ATTN, Action.MLP, Action.RUN):
                ran = codes == part
                calls[i][ran] += costs.shares[int(part), layer]
            last[i][np.isin(codes, (1, 2, 3))] = layer
            awake[i] &= codes != Action.EXIT
    count = np.bincount(trace.row, minlength=trace.texts)
    return [float((np.bincount(trace.row, c, trace.texts) / count).mean()) / probe.depth for c in calls]


def _codes(method: Method, view: TraceView) -> NDArray[np.int64] | int:
    answer = method.route(view)
    codes = answer.codes if isinstance(answer, Route) else answer
    if not isinstance(codes, Tensor):
        return int(codes)
    found: NDArray[np.int64] = codes.cpu().long().numpy()
    return found * int(Action.RUN) if codes.dtype == torch.bool else found
