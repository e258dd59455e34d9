"""Weigh given answers: the log-likelihood of a continuation after its context, through the gates.

The forward is a routed prompt's: it has no decode steps, so a method acts on every token or on none. Rows of a batch
are padded on the left; the mask keeps padding out of attention, no method is asked about it, and only true tokens are
credited. Answers of a document whose tokens but the last are the same, such as single letters, share a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dlbench.engine import keyed_rng
from dlbench.engine.engine import Engine
from dlbench.engine.flops.costs import CATEGORIES
from dlbench.engine.flops.ledger import Ledger, Traffic
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.layers.call_args import Angles
from dlbench.engine.routing.live_view import LiveView, tight_below
from dlbench.engine.routing.method_plan import NOBODY, Routing
from dlbench.errors import DlbenchError
from dlbench.method import Method

_POSITIONS = 1024
"""Most positions whose logits are held at once: half a gigabyte at a vocabulary of 128 thousand."""


@dataclass(frozen=True)
class Question:
    """One document: contexts and continuations as token ids."""

    id: str
    """Keys the noise: all answers of a document are weighed by the same layers."""
    answers: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]


@dataclass
class Verdict:
    """What the model makes of the answers of one question, and what that cost."""

    answers: list[tuple[float, bool]]
    """Log-likelihood of each continuation, and whether greedy decoding would write it."""
    tokens: int = 0
    """True tokens that ran."""
    layers: list[float] = field(default_factory=list)
    """Executed layers of each row."""
    routes: list[tuple[bytes, int]] = field(default_factory=list)
    """What the tokens of each row did, one Action per layer, and how many rows one after the other did the same."""
    flops: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CATEGORIES, 0))
    """Credited FLOPs, by category."""
    executed: int = 0
    """Executed FLOPs, padding included."""


@dataclass(frozen=True)
class _Row:
    """Tokens that run once, and the answers that are read off their last positions."""

    question: int
    ids: tuple[int, ...]
    wanted: tuple[tuple[int, tuple[int, ...]], ...]
    """(index of the answer, its continuation)."""

    @property
    def read(self) -> int:
        """Last positions whose logits are needed."""
        return max(len(continuation) for _, continuation in self.wanted)


@torch.inference_mode()
def weigh(
    engine: Engine, questions: Sequence[Question], method: Method | None = None, seed: int = 0, *, slots: int = 48
) -> list[Verdict]:
    """Weigh the answers of some questions.

    Args:
        engine: runs them.
        questions: their rows are batched by length.
        method: static or per sequence; None runs every layer.
        seed: seed of the method's noise.
        slots: most rows run together.

    Returns:
        One Verdict per question, in their order.

    Raises:
        DlbenchError: the method decides per token, an answer does not fit the context, or holds a token that the model
            has no embedding for.
    """
    if method is not None and method.scope == "token":
        raise DlbenchError(f"{type(method).__name__} decides per token; answers are weighed by whole sequences")
    verdicts = [Verdict([(0.0, False)] * len(q.answers)) for q in questions]
    rows = [row for index, question in enumerate(questions) for row in _rows(index, question)]
    for row in rows:
        if not row.ids or len(row.ids) > engine.backbone.context:
            raise DlbenchError(
                f"document {questions[row.question].id}: {len(row.ids)} tokens do not fit a context of "
                f"{engine.backbone.context}"
            )
        weighed = (token for _, continuation in row.wanted for token in continuation)
        engine.backbone.check_ids(
            (*row.ids, *weighed), f"document {questions[row.question].id}: an answer with its context"
        )
    ordered = sorted(rows, key=lambda row: len(row.ids))
    while ordered:
        group: list[_Row] = []
        while ordered and len(group) < slots:
            if group and (len(group) + 1) * max(r.read for r in (*group, ordered[0])) > _POSITIONS:
                break
            group.append(ordered.pop(0))
        _run(engine, group, [questions[row.question].id for row in group], method, seed, verdicts)
    return verdicts


def _rows(index: int, question: Question) -> list[_Row]:
    shared: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for answer, (context, continuation) in enumerate(question.answers):
        shared.setdefault((*context, *continuation)[:-1], []).append((answer, continuation))
    return [_Row(index, ids, tuple(wanted)) for ids, wanted in shared.items()]


def _run(
    engine: Engine, group: Sequence[_Row], ids: Sequence[str], method: Method | None, seed: int, verdicts: list[Verdict]
) -> None:
    """One forward; adds what it found and cost to the verdicts."""
    backbone, count = engine.backbone, len(group)
    lengths = np.array([len(row.ids) for row in group], dtype=np.int64)
    read = np.array([row.read for row in group], dtype=np.int64)
    columns, kept = int(lengths.max()), int(read.max())
    tokens, mask = torch.zeros(2, count, columns, dtype=torch.long)
    for i, row in enumerate(group):
        tokens[i, columns - len(row.ids) :] = torch.tensor(row.ids)
        mask[i, columns - len(row.ids) :] = 1
    tokens, mask = tokens.to(backbone.device), mask.to(backbone.device)
    cache = RowCache(engine.costs.windows, count, columns)
    cache.seat(np.arange(count), lengths, columns)
    ledger = Ledger(engine.costs, count, engine.metered)
    ledger.begin(np.arange(count), Traffic(lengths, np.zeros_like(lengths), columns, 0))
    routing = None
    if method is not None:
        keys = np.array([keyed_rng.key_of(id_) for id_ in ids], dtype=np.uint64)
        view = LiveView(backbone, seed, keys, np.ones(count, dtype=np.int64), tight_below(backbone.precision))
        routing = Routing(method, view, None)
    with engine.gates.installed():
        engine.gates.begin(cache, ledger, routing, Angles(engine.gates.kinds, columns))
        logits = backbone.model(
            input_ids=tokens,
            attention_mask=mask if bool((lengths < columns).any()) else None,
            position_ids=(mask.cumsum(-1) - 1).clamp_(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=kept,
        ).logits
    ledger.finish(NOBODY, kept, read)
    ledger.close_step(lengths.tolist())
    for i, row in enumerate(group):
        verdict = verdicts[row.question]
        for answer, continuation in row.wanted:
            verdict.answers[answer] = _read(logits[i], continuation, ids[i])
        verdict.tokens += len(row.ids)
        verdict.layers.append(ledger.depths[i][0])  # all tokens of a row do the same
        verdict.routes.append((ledger.routes[i][0][0], 1))
        verdict.executed += int(ledger.executed[i])
        for category, flops in ledger.total(i).items():
            verdict.flops[category] += flops


def _read(logits: Tensor, continuation: Sequence[int], id_: str) -> tuple[float, bool]:
    """Log-likelihood of a continuation, and whether it is the greedy one; the last logits are for its last token."""
    wanted = torch.tensor(continuation, device=logits.device)
    predicted = torch.log_softmax(logits[-len(continuation) :].float(), -1)  # [continuation, vocabulary]
    found = predicted.gather(-1, wanted[:, None]).sum()
    if not torch.isfinite(found):
        raise DlbenchError(f"document {id_}: the logits are not finite")
    return float(found), bool((predicted.argmax(-1) == wanted).all())
