"""Layer share of a method for any value of its knob, estimated from one full-depth pass under teacher forcing.

The estimate is open loop: states are those of full depth whatever the method decides. For exits it equals free decoding
on the same text; for skips the later states would differ. So tuning starts from this curve and corrects it by decoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlbench.engine import keyed_rng
from dlbench.engine.flops.costs import Costs
from dlbench.errors import MethodError
from dlbench.fit.references import BATCH, Flags, References, Trace
from dlbench.method import Action, Exit, Method, Prompt, Route, View
from dlbench.prompting.teacher_forcing import Batch

_LOGITS = 1 << 30
"""Most bytes of float32 logits from which confidences are computed at once; methods make several copies of them."""


def record(references: References) -> Trace | None:
    """Run the references to tune on through the backbone once; documents that do not fit the context are left out.

    Returns:
        None where no reference has a token to decode.
    """
    known = references.readings
    if known.trace is None or known.trace[0] != references.seed:
        known.trace = references.seed, _record(references)
        known.confidences.clear()
    _, trace = known.trace
    if trace is not None:
        references.tokens += trace.tokens
    return trace


def _record(references: References) -> Trace | None:
    documents = {d.id: d for d in references.documents("tune")}
    ids, examples = [], []
    for d, e in zip(documents.values(), references.examples_of(list(documents.values())), strict=True):
        if len(e.target) > 1:
            ids.append(d.id)
            examples.append(e)
    if not examples:
        return None
    states, row, step, position, tokens = [], [], [], [], 0
    for first in range(0, len(examples), BATCH):
        group = examples[first : first + BATCH]
        batch = Batch.of(group).to(references.backbone.device)
        tokens += int(batch.mask.sum())
        states.append(torch.stack(references.text(batch).states))
        for i, e in enumerate(group):
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
        np.array([list(documents).index(i) for i in ids], dtype=np.int64),
    )


class _Remembers(Exception):
    """A method gave new memory while it was asked for tokens of several steps at once."""


class TraceView(View):
    """A method's view of a trace: all its tokens at once."""

    one_step = False
    """Whether all tokens are of one step."""

    def __init__(self, references: References, trace: Trace) -> None:
        self.depth, self.references, self._trace = references.backbone.depth, references, trace
        self._logits: Tensor | None = None
        self._active: Flags = np.ones(len(trace.row), dtype=bool)
        self._last: NDArray[np.int64] | None = None
        self.kept: Tensor | None = None
        """Memory of each text: [texts, m]."""

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        return len(self._trace.row)

    def move(self, layer: int) -> None:
        """Set the current layer."""
        self.layer, self._logits = layer, None

    def show(self, active: Flags, last: NDArray[np.int64], memory: Tensor | None) -> None:
        """Set the tokens to show.

        Args:
            active: tokens that have not exited: [tokens].
            last: last layer that each token has run, -1 for none: [tokens].
            memory: memory of each text.
        """
        self._active, self._last, self.kept = active, last, memory

    def _pick(self, x: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(x[self._active])

    def rows(self, x: Tensor) -> Tensor:
        """The tokens shown, of all: [tokens, …] → [active, …]."""
        return x[torch.from_numpy(self._active).to(x.device)]

    @property
    def hidden(self) -> Tensor:
        return self.rows(self._trace.states[self.layer])

    @property
    def before(self) -> Tensor | None:
        assert self._last is not None
        if (self._last < 0).all():
            return None
        states, last = self._trace.states, torch.from_numpy(self._last).to(self._trace.states.device)
        inputs = states[last.clamp(min=0), torch.arange(states.shape[1], device=states.device)]
        return self.rows(torch.where((last >= 0)[:, None], inputs, 0))

    @property
    def embedded(self) -> Tensor:
        return self.rows(self._trace.states[0])

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
        return None if self.kept is None else self.kept[self.row.to(self.kept.device)]

    def remember(self, memory: Tensor) -> None:
        """Store new memory of the tokens shown, which are of one step.

        Raises:
            _Remembers: they are of several steps, so that some should have seen what others leave.
        """
        if not self.one_step:
            raise _Remembers
        if self.kept is None or self.kept.shape[1] != memory.shape[1]:
            self.kept = memory.new_zeros(self._trace.texts, memory.shape[1])
        self.kept[self.row.to(memory.device)] = memory

    def logits(self) -> Tensor:
        if self._logits is None:
            self._logits = self.references.logits(self._trace.states[self.layer])
        return self.rows(self._logits)

    def foreseen(self, layer: int) -> Tensor:
        return self.rows(self.references.logits(self._trace.states[layer]).argmax(-1))

    def uniform(self, count: int = 1, per: Literal["layer", "token", "sequence"] = "layer") -> Tensor:
        trace, kind = self._trace, {"layer": 0, "token": 1, "sequence": 2}[per]
        rows, steps = trace.row[self._active], trace.step[self._active]
        counters = {"layer": (steps, self.layer), "token": (steps,), "sequence": ()}[per]
        return torch.from_numpy(keyed_rng.uniform(trace.keys[rows], count, self.references.seed, kind, *counters))

    def at_least(self, score: Tensor, threshold: float | Tensor) -> Tensor:
        if bool(score.isnan().any()):
            raise MethodError(f"at_least() got a score that is not a number before layer {self.layer}")
        return score >= (threshold.to(score.device) if isinstance(threshold, Tensor) else threshold)


@torch.inference_mode()
def shares(
    references: References,
    method: Method,
    trace: Trace,
    values: Sequence[float],
    prompt: Prompt | None = None,
    view: TraceView | None = None,
) -> list[float]:
    """Open-loop layer share of a method for each value of its knob: mean over texts of the mean over tokens.

    Args:
        references: run the exit head.
        method: its knob is left at the last value.
        trace: the texts.
        values: values of the knob.
        prompt: states of the prompts of all documents to tune on, for `Method.begin`; None where it gives nothing.
        view: what the method sees; None for a view of the trace.
    """
    assert method.knob is not None
    view = view or TraceView(references, trace)
    sure = _confidences(references, method, trace, view) if is_plain_exit(method) else None
    memory: list[Tensor | None] = []
    for value in values:
        setattr(method, method.knob.name, value)
        first = None if prompt is None else method.begin(prompt)
        memory.append(None if first is None else first[torch.from_numpy(trace.document).to(first.device)])
    try:
        calls = _calls(view, method, values, memory, sure)
    except _Remembers:  # step by step, as in decoding
        calls = [np.zeros(len(trace.row)) for _ in values]
        for step in range(int(trace.step.max()) + 1):
            chosen = np.flatnonzero(trace.step == step)
            part = TraceView(references, trace.take(chosen))
            part.one_step = True
            for all_, some in zip(calls, _calls(part, method, values, memory, None), strict=True):
                all_[chosen] = some
    count = np.bincount(trace.row, minlength=trace.texts)
    return [float((np.bincount(trace.row, c, trace.texts) / count).mean()) / references.backbone.depth for c in calls]


def _calls(
    view: TraceView,
    method: Method,
    values: Sequence[float],
    memory: list[Tensor | None],
    sure: list[Tensor] | None,
) -> list[NDArray[np.float64]]:
    """Layers that each token of a view runs, for each value of the knob: [tokens].

    Args:
        view: what the method sees.
        method: its knob is left at the last value.
        values: values of the knob.
        memory: of the texts, for each value; left as the last token leaves it.
        sure: see `_codes`.
    """
    assert method.knob is not None
    costs, n = Costs(view.references.backbone), view.tokens
    active = [np.ones(n, dtype=bool) for _ in values]
    last = [np.full(n, -1, dtype=np.int64) for _ in values]
    calls = [np.zeros(n) for _ in values]
    for layer in range(view.depth):
        view.move(layer)
        for i, value in enumerate(values):
            if not active[i].any():
                continue
            setattr(method, method.knob.name, value)
            view.show(active[i], last[i], memory[i])
            codes = np.zeros(n, dtype=np.int64)
            codes[active[i]] = _codes(method, view, sure)
            memory[i] = view.kept
            for part in (Action.ATTN, Action.MLP, Action.RUN):
                calls[i][codes == part] += costs.shares[int(part), layer]
            last[i][np.isin(codes, (1, 2, 3))] = layer
            active[i] &= codes != Action.EXIT
    return calls


def is_plain_exit(method: Method) -> TypeGuard[Exit]:
    """Whether only the thresholds of an exit depend on its knob."""
    return isinstance(method, Exit) and method.knob is not None and method.knob.name == "threshold"


def confidence_key(method: Exit) -> str:
    """Name what the confidences of an exit depend on: all but its threshold."""
    params = {name: value for name, value in method.params().items() if name != "threshold"}
    weights = b"".join(tensor.detach().cpu().float().numpy().tobytes() for tensor in method.weights().values())
    return f"{type(method).__module__}.{type(method).__qualname__} {params} {hashlib.sha256(weights).hexdigest()}"


def _confidences(references: References, method: Exit, trace: Trace, view: TraceView) -> list[Tensor]:
    """Confidence of all tokens before each checked layer: [tokens] each; computed once, for all values and budgets."""
    key, known = confidence_key(method), references.readings.confidences
    if key not in known:
        parts = -(-view.tokens * references.backbone.vocabulary * 4 // _LOGITS)
        if parts <= 1:
            known[key] = _sure(method, view)
        else:
            chosen = np.array_split(np.arange(view.tokens), parts)
            each = [_sure(method, TraceView(references, trace.take(some))) for some in chosen]
            known[key] = [torch.cat(of_layer) for of_layer in zip(*each, strict=True)]
    return known[key]


def _sure(method: Exit, view: TraceView) -> list[Tensor]:
    """Confidence of all tokens of a view before each checked layer: [tokens] each, empty for other layers."""
    found, everyone = [torch.empty(0)] * view.depth, np.ones(view.tokens, dtype=bool)
    for layer in method.checked(view.depth):
        view.move(layer)
        view.show(everyone, np.full(len(everyone), layer - 1, dtype=np.int64), None)
        found[layer] = method.confidence(view)
    return found


def _codes(method: Method, view: TraceView, sure: list[Tensor] | None) -> NDArray[np.int64] | int:
    """Answer of a method for the tokens shown; that of an exit from its confidences, where these are known."""
    if sure is None:
        answer = method.route(view)
    else:
        assert isinstance(method, Exit)
        if view.layer not in method.checked(view.depth):
            return int(Action.RUN)
        done = view.at_least(view.rows(sure[view.layer]), method.thresholds(view))
        answer = torch.where(done, int(Action.EXIT), int(Action.RUN))
    codes = answer.codes if isinstance(answer, Route) else answer
    if isinstance(answer, Route) and answer.memory is not None:
        view.remember(answer.memory)
    if not isinstance(codes, Tensor):
        return int(codes) * int(Action.RUN) if isinstance(codes, bool) else int(codes)
    numbers: NDArray[np.int64] = codes.cpu().long().numpy()
    return numbers * int(Action.RUN) if codes.dtype == torch.bool else numbers
