"""One run of a method over a wave: rows take slots, write until they end, and make room for those that wait."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dlbench.engine import noise
from dlbench.engine.cache import Slots
from dlbench.engine.debts import POLICIES, Debts
from dlbench.engine.meter import Ledger, Traffic
from dlbench.engine.request import Generation
from dlbench.engine.routing import Routing
from dlbench.engine.view import tight_below
from dlbench.errors import DlbenchError
from dlbench.method import Method

if TYPE_CHECKING:
    from dlbench.engine.wave import Chunk, Wave

_SAMPLING = 0x5A
"""Keeps the noise of sampling apart from a method's."""


class Decoding:
    """Decodes every row of a wave once."""

    def __init__(self, wave: Wave, method: Method | None, seed: int, sample: int | None, kv: str | None) -> None:
        """Prepare; see `Wave.decode`.

        Raises:
            DlbenchError: the method does not support the policy.
        """
        engine, rows = wave.engine, len(wave.requests)
        self.wave, self.seed, self.sample = wave, seed, sample
        self.backbone, self.close = engine.backbone, tight_below(engine.backbone.precision)
        self.ledger = Ledger(engine.costs, rows, engine.metered)
        self.cache = wave.room()
        self.routing: Routing | None = None
        if method is not None:
            self.routing = Routing(method, wave.look(seed), self._debts(method, kv))
            if wave.view is not None:
                self.routing.view.promised[:] = wave.view.promised
        self.coupled = method is not None and method.couples_rows
        self.waiting: deque[tuple[Chunk, int]] = deque()
        self.tokens = torch.zeros(wave.slots, dtype=torch.long, device=engine.backbone.device)
        """What each slot's row wrote last."""
        self.written: list[list[int]] = [[] for _ in range(rows)]
        self.tight: list[list[tuple[int, float]]] = [[] for _ in range(rows)]

    def _debts(self, method: Method, kv: str | None) -> Debts | None:
        """The policy; only per-token methods ever come back to a layer that they passed by."""
        policy = kv or method.kv[0]
        if policy not in method.kv:
            raise DlbenchError(
                f"method {type(method).__name__} does not support kv policy {policy!r}: it has {', '.join(method.kv)}"
            )
        if method.scope != "token":
            return None
        debts = POLICIES[policy](self.cache, self.wave.span)
        self.cache.companion = debts
        return debts

    def run(self) -> list[Generation]:
        """Decode to the end; the gates are installed."""
        if self.wave.in_place:
            (chunk,) = self.wave.chunks
            self._take(self._choose(chunk.first, self.cache.order[: self.cache.alive]))
        else:
            self.waiting.extend((chunk, place) for chunk in self.wave.chunks for place in range(len(chunk.rows)))
            self._admit(list(range(self.wave.slots)))
        while self.cache.alive:
            logits = self._step()
            self._take(self._choose(logits, self.cache.order[: self.cache.alive]))
        if self.routing is not None:
            for row, near in enumerate(self.routing.view.tight):
                self.tight[row] += [(step + 1, margin) for step, margin in near]
        return [self._generation(row) for row in range(len(self.written))]

    def _step(self) -> Tensor:
        """One decode forward of the living rows: logits [alive, vocabulary]."""
        cache = self.cache
        cache.make_room(self.wave.columns)
        context = cache.seen + 1 - cache.starts[: cache.alive]
        traffic = Traffic(np.ones_like(context), context, 1, cache.seen + 1 - cache.left)
        if self.routing is not None:
            self.routing.view.at_steps(cache.steps)
        logits = self.wave.forward(cache, self.tokens[: cache.alive, None], traffic, self.ledger, self.routing)
        self.ledger.close_step()
        return logits

    def _take(self, tokens: Tensor) -> None:
        """Each living row writes its token; those that end leave."""
        alive = self.cache.alive
        self.tokens[:alive] = tokens
        rows = self.cache.order[:alive].tolist()
        gone = [slot for slot, token in enumerate(tokens.tolist()) if self._ends(rows[slot], token)]
        if not self.coupled:
            self._drop(self._admit(gone))
            return
        self._drop(gone)
        if not self.cache.alive:  # else the batch stays as it was made up
            self._admit(list(range(self.wave.slots)))

    def _drop(self, free: list[int]) -> None:
        """The rest of the living rows move together."""
        if free:
            gone = set(free)
            source = self.cache.keep([slot for slot in range(self.cache.alive) if slot not in gone])
            self.tokens[: len(source)] = self.tokens[torch.tensor(source, dtype=torch.long, device=self.tokens.device)]

    def _admit(self, free: list[int]) -> list[int]:
        """Let waiting rows take free slots; returns those that stay free. A row may end with its first token."""
        while free and self.waiting:
            chunk, place = self.waiting.popleft()
            places = [place]
            while self.waiting and self.waiting[0][0] is chunk and len(places) < len(free):
                places.append(self.waiting.popleft()[1])
            rows = chunk.rows[places]
            tokens = self._choose(chunk.first[places], rows)
            stay = [i for i, token in enumerate(tokens.tolist()) if not self._ends(int(rows[i]), token)]
            if stay:
                slots, free = np.array(free[: len(stay)]), free[len(stay) :]
                live = None if self.routing is None else self.routing.live
                self.cache.admit(slots, chunk.cache, np.array(places)[stay], live)
                self.tokens[torch.from_numpy(slots).to(tokens.device)] = tokens[stay]
                if self.coupled:
                    break
        return free

    def _ends(self, row: int, token: int) -> bool:
        """Write a row's next token; whether it was the last."""
        request, tokens = self.wave.requests[row], self.written[row]
        tokens.append(token)
        return (
            len(tokens) >= request.limit
            or token in self.backbone.eos
            or (bool(request.stop) and self.wave.engine.stopper.hit(tokens, request.stop))
        )

    def _choose(self, logits: Tensor, rows: Slots) -> Tensor:
        """The next token of each row, [rows]; notes where the best two were close.

        Raises:
            DlbenchError: the logits are not finite.
        """
        scores: Any = logits.float()
        steps = np.array([len(self.written[row]) for row in rows.tolist()], dtype=np.int64)
        if self.sample is not None:  # Gumbel-max: an argmax again, so one code path
            u = noise.uniform(self.wave.keys[rows], scores.shape[1], _SAMPLING, self.seed, self.sample, steps)
            scores = scores - torch.from_numpy(np.log(-np.log(u + 1e-300) + 1e-300)).to(scores)
        best, places = scores.max(-1, keepdim=True)
        second = scores.scatter_(1, places, -torch.inf).amax(-1)
        scores.scatter_(1, places, best)  # as it was: a copy of so many numbers would cost more
        margins = (best[:, 0] - second).tolist()
        for row, step, margin in zip(rows.tolist(), steps.tolist(), margins, strict=True):
            if not margin >= self.close:
                if margin != margin:
                    raise DlbenchError(f"document {self.wave.requests[row].id}: the logits are not finite")
                self.tight[row].append((step, margin))
        return places[:, 0]  # type: ignore[no-any-return]

    def _generation(self, row: int) -> Generation:
        prompts, ledger = self.wave.ledger, self.ledger
        return Generation(
            tokens=self.written[row],
            layers=ledger.depths[row],
            routes=ledger.routes[row],
            flops=ledger.total(row),
            executed=int(ledger.executed[row]),
            prompt_flops=sum(prompts.total(row).values()),
            prompt_executed=int(prompts.executed[row]),
            acted=ledger.acted or prompts.acted,
            tight=sorted(self.tight[row]),
        )
