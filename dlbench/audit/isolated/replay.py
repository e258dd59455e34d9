"""Decode under recorded routes, in a process that never loaded the method that they are of."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from dlbench.engine import Engine, Generation, Request
from dlbench.method import Action, Method, Route, View
from dlbench.method.actions import Scope
from dlbench.registry import kv_policies

Routes = Sequence[tuple[str, int]]
"""Digits of a forward's layers, and how many forwards in a row took them."""
Answers = Mapping[str, Mapping[str, Any]]
"""What `Recording` notes beyond routes."""
_EXIT = int(Action.EXIT)


@dataclass(frozen=True)
class MethodClaim:
    """What a method says of itself that decides how its tokens' keys and values are kept."""

    scope: Scope
    live: frozenset[int] | None
    kv: str
    draft: bool
    """Whether it drafts and verifies: its text is that of full depth."""
    adapters: bool
    """Whether tokens that skip a layer go through a module of its own."""
    batch_dependent: bool
    future: bool
    """Whether it asks what full depth would write, which takes a forward that is not counted."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> MethodClaim:
        """From JSON."""
        live = None if facts["live"] is None else frozenset(facts["live"])
        return cls(**{**facts, "live": live})


@final
class Replayed(Method):
    """Gives the answers that another method gave, by row, step and layer."""

    kv: ClassVar[tuple[str, ...]] = tuple(kv_policies.names())

    def __init__(self, claim: MethodClaim, depth: int, routes: Sequence[Routes], answers: Answers):
        """Prepare.

        Args:
            claim: of the method.
            depth: of the model.
            routes: of each row, as its sample has them.
            answers: what `Recording` noted beyond them.
        """
        self._claim, self._answers = claim, answers
        self._codes = _table(routes, depth, exits=not claim.adapters)
        for place, answer in answers.items():
            row, step, layer = map(int, place.split())
            self._codes[row, step, layer] = answer.get("code", self._codes[row, step, layer])
        self._asked: list[Mapping[str, Any]] = []
        """Answers for the tokens of the present question."""
        self._detailed = any(answer.keys() - {"code"} for answer in answers.values())

    @property
    def scope(self) -> Scope:
        return self._claim.scope

    @property
    def batch_dependent(self) -> bool:
        return self._claim.batch_dependent

    def live(self, depth: int) -> frozenset[int] | None:
        return self._claim.live

    def route(self, view: View) -> Tensor | Route:
        rows, steps = view.row.numpy(), view.step.numpy()
        codes = torch.from_numpy(self._codes[rows, steps, view.layer].astype(np.int64))
        if not self._detailed:
            return codes
        places = zip(rows.tolist(), steps.tolist(), strict=True)
        self._asked = [self._answers.get(f"{row} {step} {view.layer}", {}) for row, step in places]
        if any("token" in answer for answer in self._asked):
            view.logits()  # what exits here takes its token from the method's own head
        scales = [answer.get("scale") for answer in self._asked]
        if all(scale is None for scale in scales):
            return codes
        return Route(codes, torch.tensor([1.0 if s is None else s for s in scales], dtype=torch.float64))

    def bypass(self, layer: int) -> nn.Module | None:
        added = [answer["added"] for answer in self._asked if "added" in answer]
        return _Given(torch.tensor(added, dtype=torch.float64)) if added else None

    def head(self, layer: int) -> nn.Module | None:
        tokens = [answer.get("token", 0) for answer in self._asked]
        return _OneHot(torch.tensor(tokens), self.vocabulary) if any("token" in a for a in self._asked) else None

    vocabulary = 0
    """Of the model; set before decoding."""


class _Given(nn.Module):
    """Gives recorded rows."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self._rows = rows

    def forward(self, x: Tensor) -> Tensor:
        return self._rows


class _OneHot(nn.Module):
    """Gives logits whose largest are recorded tokens."""

    def __init__(self, tokens: Tensor, vocabulary: int) -> None:
        super().__init__()
        self._tokens, self._vocabulary = tokens, vocabulary

    def forward(self, x: Tensor) -> Tensor:
        return 10 * nn.functional.one_hot(self._tokens, self._vocabulary).double()


def _table(routes: Sequence[Routes], depth: int, *, exits: bool) -> np.ndarray[Any, np.dtype[np.int8]]:
    """The code of each row, step and layer; a forward's last skipped layers are an exit where `exits`."""
    steps = max((sum(times for _, times in of) for of in routes), default=0)
    codes = np.full((len(routes), steps + 1, depth), int(Action.RUN), dtype=np.int8)
    for row, of in enumerate(routes):
        step = 0
        for route, times in of:
            taken = np.array([int(digit) for digit in route], dtype=np.int8)
            ran = np.flatnonzero(taken)
            if exits:
                taken[(int(ran[-1]) + 1 if len(ran) else 0) :] = _EXIT
            codes[row, step : step + times] = taken
            step += times
    return codes


def replay(
    engine: Engine,
    requests: Sequence[Request],
    claim: MethodClaim,
    routes: Sequence[Routes],
    answers: Answers,
    *,
    times: int = 1,
) -> tuple[list[Generation], float]:
    """Decode under recorded routes; returns what is written, and the least processor time of one decoding in seconds.

    Args:
        engine: of the model that they were recorded on.
        requests: the prompts, in the same order.
        claim: of the method.
        routes: of each prompt.
        answers: what was noted beyond routes; empty for none.
        times: how often to decode.

    Raises:
        DlbenchError: the routes break what the method declares.
    """
    method = None if claim.draft else Replayed(claim, engine.backbone.depth, routes, answers)
    if method is not None:
        method.vocabulary = engine.backbone.vocabulary
    wave = engine.prefill(requests)
    least, written = float("inf"), list[Generation]()
    for _ in range(times):
        start = time.process_time()
        written = wave.decode(method, seed=0, kv=None if method is None else claim.kv)
        least = min(least, time.process_time() - start)
    return written, least
