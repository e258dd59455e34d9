"""Score given answers: the log-likelihood of a continuation after its context, under a method.

The forward is that of a routed prompt: it has no decode steps, so a method decides for whole sequences. Rows of a batch
are padded on the left; padding is masked, no method is asked about it, and only true tokens are credited. Answers of a
document that differ in the last token only, such as single letters, share a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dlbench.engine import keyed_rng
from dlbench.engine.engine import Engine
from dlbench.engine.flops.ledger import Ledger, Traffic
from dlbench.engine.interfaces import NOBODY
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots
from dlbench.engine.layers.rotary_tables import Angles
from dlbench.engine.requests import Question, Verdict, near_tie_below
from dlbench.engine.routing.live_view import LiveView
from dlbench.engine.routing.method_plan import Routing
from dlbench.engine.runtime import Runtime
from dlbench.errors import DlbenchError
from dlbench.method import Method

_POSITIONS = 1024
"""Most positions whose logits are in memory at once: half a gigabyte at a vocabulary of 128,000."""


@dataclass(frozen=True)
class _Row:
    """Tokens that run once, and the answers that their last positions score."""

    question: int
    ids: tuple[int, ...]
    wanted: tuple[tuple[int, tuple[int, ...]], ...]
    """(index of the answer, its continuation)."""

    @property
    def read(self) -> int:
        """Last positions whose logits are needed."""
        return max(len(continuation) for _, continuation in self.wanted)

    def positions(self, every: bool) -> int:
        """Last positions whose logits are computed: all of them, or those that are needed."""
        return len(self.ids) if every else self.read


@torch.inference_mode()
def weigh(
    engine: Engine,
    questions: Sequence[Question],
    method: Method | None = None,
    seed: int = 0,
    *,
    slots: int = 48,
    every_position: bool = False,
) -> list[Verdict]:
    """Score the answers of some questions.

    Args:
        engine: runs them.
        questions: their rows are batched by length.
        method: static or per sequence; None runs every layer.
        seed: seed of the method's noise.
        slots: most rows run together.
        every_position: compute the logits of all positions, as lm-eval's `hf` does, not of those that are scored only:
            the last bits of a matrix product depend on its number of rows.

    Returns:
        One Verdict per question, in their order.

    Raises:
        DlbenchError: the method decides per token, an answer does not fit the context, or holds a token that the model
            has no embedding for.
    """
    if method is not None and method.scope == "token":
        raise DlbenchError(f"{type(method).__name__} decides per token; answers are scored by whole sequences")
    verdicts = [Verdict([(0.0, False)] * len(q.answers)) for q in questions]
    rows = [row for index, question in enumerate(questions) for row in _rows(index, question)]
    for row in rows:
        if not row.ids or len(row.ids) > engine.backbone.context:
            raise DlbenchError(
                f"document {questions[row.question].id}: {len(row.ids)} tokens do not fit a context of "
                f"{engine.backbone.context}"
            )
        scored = (token for _, continuation in row.wanted for token in continuation)
        engine.backbone.check_ids(
            (*row.ids, *scored), f"document {questions[row.question].id}: an answer with its context"
        )
    ordered = sorted(rows, key=lambda row: len(row.ids))
    while ordered:
        group: list[_Row] = []
        while ordered and len(group) < slots:
            positions = max(r.positions(every_position) for r in (*group, ordered[0]))
            if group and (len(group) + 1) * positions > _POSITIONS:
                break
            group.append(ordered.pop(0))
        routed = None if method is None else (method, seed)
        keep = max(row.positions(every_position) for row in group)
        _run(engine.runtime, group, [questions[row.question].id for row in group], routed, keep, verdicts)
    return verdicts


def _rows(index: int, question: Question) -> list[_Row]:
    """Group the answers of a question by the tokens that run."""
    shared: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {}
    for answer, (context, continuation) in enumerate(question.answers):
        shared.setdefault((*context, *continuation)[:-1], []).append((answer, continuation))
    return [_Row(index, ids, tuple(wanted)) for ids, wanted in shared.items()]


def _run(
    runtime: Runtime,
    group: Sequence[_Row],
    ids: Sequence[str],
    routed: tuple[Method, int] | None,
    keep: int,
    verdicts: list[Verdict],
) -> None:
    """Score some rows in one forward; results and costs are added to the verdicts.

    Args:
        runtime: runs the forward.
        group: the rows.
        ids: of their documents.
        routed: method and seed; None runs every layer.
        keep: last positions whose logits are computed.
        verdicts: of all questions.
    """
    read = np.array([row.read for row in group], dtype=np.int64)
    tokens, mask, lengths = _padded(group)
    count, columns = tokens.shape
    ledger = Ledger(runtime.costs, count, runtime.metered)
    ledger.begin(np.arange(count), Traffic(lengths, np.zeros_like(lengths), columns, 0))
    routing = None
    if routed is not None:
        method, seed = routed
        keys, backbone = np.array([keyed_rng.key_of(id_) for id_ in ids], dtype=np.uint64), runtime.backbone
        view = LiveView(backbone, seed, keys, np.ones(count, dtype=np.int64), near_tie_below(backbone.precision))
        routing = Routing(method, view, None)
    logits = _forward(runtime, tokens, mask, lengths, ledger, routing, keep)
    ledger.finish(NOBODY, keep, read)
    ledger.close_step(lengths.tolist())
    for i, row in enumerate(group):
        verdict = verdicts[row.question]
        for answer, continuation in row.wanted:
            verdict.answers[answer] = _read(logits[i], continuation, ids[i])
        verdict.tokens += len(row.ids)
        verdict.layers.append(ledger.depths[i][0])  # all tokens of a row take the same layers
        verdict.routes.append((ledger.routes[i][0][0], 1))
        verdict.executed += int(ledger.executed[i])
        for category, flops in ledger.total(i).items():
            verdict.flops[category] += flops


def _padded(group: Sequence[_Row]) -> tuple[Tensor, Tensor, Slots]:
    """Token ids padded on the left, their mask, [rows, columns] each, and the lengths of the rows."""
    lengths = np.array([len(row.ids) for row in group], dtype=np.int64)
    columns = int(lengths.max())
    tokens, mask = torch.zeros(2, len(group), columns, dtype=torch.long)
    for i, row in enumerate(group):
        tokens[i, columns - len(row.ids) :] = torch.tensor(row.ids)
        mask[i, columns - len(row.ids) :] = 1
    return tokens, mask, lengths


def _forward(
    runtime: Runtime,
    tokens: Tensor,
    mask: Tensor,
    lengths: Slots,
    ledger: Ledger,
    routing: Routing | None,
    keep: int,
) -> Tensor:
    """Logits of the last `keep` positions of each row: [rows, keep, vocabulary]."""
    (count, columns), device = tokens.shape, runtime.backbone.device
    tokens, mask = tokens.to(device), mask.to(device)
    cache = RowCache(runtime.costs.windows, count, columns)
    cache.seat(np.arange(count), lengths, columns)
    with runtime.gates.installed():
        runtime.gates.begin(cache, ledger, routing, Angles(runtime.gates.kinds, columns))
        logits: Tensor = runtime.backbone.model(
            input_ids=tokens,
            attention_mask=mask if bool((lengths < columns).any()) else None,
            position_ids=(mask.cumsum(-1) - 1).clamp_(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        ).logits
    return logits


def _read(logits: Tensor, continuation: Sequence[int], id_: str) -> tuple[float, bool]:
    """Log-likelihood of a continuation, and whether it is the greedy one; the last logits predict its last token."""
    wanted = torch.tensor(continuation, device=logits.device)
    predicted = torch.log_softmax(logits[-len(continuation) :].float(), -1)  # [continuation, vocabulary]
    total = predicted.gather(-1, wanted[:, None]).sum()
    if not torch.isfinite(total):
        raise DlbenchError(f"document {id_}: the logits are not finite")
    return float(total), bool((predicted.argmax(-1) == wanted).all())
