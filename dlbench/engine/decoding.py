"""The decode loop: rows of a wave take slots, write until they end, and leave their slots to waiting rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from dlbench.engine.flops.ledger import Ledger, Traffic
from dlbench.engine.kv import policies
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.prefill import Chunk, ForwardOptions, Wave
from dlbench.engine.requests import Generation, near_tie_below
from dlbench.engine.routing.method_plan import Routing
from dlbench.engine.sampling import argmax_with_margin, gumbel
from dlbench.errors import DlbenchError, MethodError
from dlbench.method import Method


class DecodeLoop(ABC):
    """Writes every text of a wave once: rows take slots, and waiting rows enter as others end.

    Where `generate` reads a text again because its rotary angles change, so does the loop: the prompt and the new
    tokens but for the last one are read as prompts are (by all layers, or under `prompt = routed` by the prompt's). The
    last token then takes its step under the method, like every other. At full depth that is what `generate` does. Keys
    and values that skipped tokens lacked are there from then on. Reading again is charged as a prompt is.
    """

    def __init__(
        self, wave: Wave, cache: RowCache, *, in_place: bool, coupled: bool, seed: int, sample: int | None
    ) -> None:
        """Prepare.

        Args:
            wave: has the prompts.
            cache: takes the keys and values.
            in_place: whether it holds all rows already.
            coupled: whether a batch must keep its rows until all have ended.
            seed: of the sampling.
            sample: stream of noise; None takes the most likely token.
        """
        runtime, rows = wave.runtime, len(wave.requests)
        self.wave, self.cache, self.in_place, self.coupled = wave, cache, in_place, coupled
        self.seed, self.sample = seed, sample
        self.backbone, self.close = runtime.backbone, near_tie_below(runtime.backbone.precision)
        self.eos = runtime.backbone.eos
        self.processors = runtime.processors(wave.requests)
        """Logits processors that the model's generation_config asks for; None for none."""
        self.ledger = Ledger(runtime.costs, rows, runtime.metered)
        self.live: frozenset[int] | None = None
        """Layers whose keys and values are copied when a row enters; None for all."""
        self.waiting: deque[tuple[Chunk, int]] = deque()
        self.tokens = torch.zeros(wave.slots, dtype=torch.long, device=runtime.backbone.device)
        """The last token of each slot's row."""
        self.written: list[list[int]] = [[] for _ in range(rows)]
        self.near_ties: list[list[tuple[int, float]]] = [[] for _ in range(rows)]
        self.again = Ledger(runtime.costs, rows, runtime.metered)
        """Charged for reading texts again."""
        self.reread: set[int] = set()
        """Rows that were read again."""
        self.on_logits: Callable[[Slots, Tensor], None] | None = None
        """Called with rows and the logits that each one's next token is chosen from."""

    def run(self) -> list[Generation]:
        """Write to the end; the gates are installed."""
        if self.in_place:
            (chunk,) = self.wave.chunks
            rows = self.cache.order[: self.cache.alive]
            self._write([[token] for token in self._choose(chunk.first, rows).tolist()])
        else:
            # long prompts tend to have long outputs: started last, they would keep a few slots busy at the end
            chunks = reversed(self.wave.chunks)
            self.waiting.extend((chunk, place) for chunk in chunks for place in reversed(range(len(chunk.rows))))
            self._admit(list(range(self.wave.slots)))
        while self.cache.alive:
            self._read_again()
            self._advance()
        self.cache.companion = None  # else each would keep the other alive
        return [self._generation(row) for row in range(len(self.written))]

    @abstractmethod
    def _advance(self) -> None:
        """Let the living rows write one token or more."""

    def _read_again(self) -> None:
        """Read texts again whose next token is the first beyond the original context."""
        cache, limit = self.cache, self.wave.reread_after
        if limit is None:
            return
        for slot in np.flatnonzero(cache.seen - cache.starts[: cache.alive] == limit).tolist():
            row = int(cache.order[slot])
            written = self.written[row][:-1]
            source = self.wave.read_again(row, [*self.wave.requests[row].ids, *written], self.again)
            cache.admit(np.array([slot]), source, np.array([0]), self.live, decoded=len(written))
            self.reread.add(row)
            self.ledger.read_again(row)

    def _write(self, texts: Sequence[Sequence[int]]) -> None:
        """Append new tokens to each living row, up to its end; waiting rows take the slots of rows that end."""
        self._replace(self._put(texts)[1])

    def _put(self, texts: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """Append new tokens to each living row, up to its end: returns how many, and the slots of rows that ended."""
        rows = self.cache.order[: self.cache.alive].tolist()
        counts, gone = [], []
        for slot, (row, tokens) in enumerate(zip(rows, texts, strict=True)):
            count = 0
            for token in tokens:
                count += 1
                if self._ends(row, token):
                    gone.append(slot)
                    break
            counts.append(count)
        last = [tokens[count - 1] for tokens, count in zip(texts, counts, strict=True)]
        self.tokens[: len(last)] = on(np.array(last), self.tokens.device)
        return counts, gone

    def _replace(self, gone: list[int]) -> None:
        if not self.coupled:
            self._drop(self._admit(gone))
            return
        self._drop(gone)
        if not self.cache.alive:  # until then the batch keeps its rows
            self._admit(list(range(self.wave.slots)))

    def _drop(self, free: list[int]) -> None:
        """Remove the rows in these slots; the other living rows close the gaps."""
        if free:
            gone = set(free)
            source = self.cache.keep([slot for slot in range(self.cache.alive) if slot not in gone])
            self.tokens[: len(source)] = self.tokens[torch.tensor(source, dtype=torch.long, device=self.tokens.device)]

    def _admit(self, free: list[int]) -> list[int]:
        """Let waiting rows take free slots; returns the slots still free. A row may end with its first token."""
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
                self.cache.admit(slots, chunk.cache, np.array(places)[stay], self.live)
                device = self.tokens.device
                self.tokens[on(slots, device)] = tokens[stay].to(device)
                if self.coupled:
                    break
        return free

    def _ends(self, row: int, token: int) -> bool:
        """Append a row's next token; returns whether it was the last."""
        request, tokens = self.wave.requests[row], self.written[row]
        tokens.append(token)
        return (
            len(tokens) >= request.limit
            or token in self.eos
            or self.wave.runtime.stopper.hit(tokens, request.stop, request.thinking)
        )

    def _choose(self, logits: Tensor, rows: Slots, ahead: Sequence[int] | None = None) -> Tensor:
        """The next token of each row, [rows], on the host; near ties are noted.

        Args:
            logits: [rows, vocabulary].
            rows: of the wave.
            ahead: how many tokens of each row are chosen, but not written yet.

        Raises:
            DlbenchError: the logits are not finite, or no token may be written.
        """
        if self.on_logits is not None:
            self.on_logits(rows, logits)
        scores: Any = logits.float()
        steps = np.array([len(self.written[row]) for row in rows.tolist()], dtype=np.int64)
        if ahead is not None:
            steps += np.array(ahead, dtype=np.int64)
        if self.processors is not None:
            scores = self.processors(logits, rows, steps)
        if self.sample is not None:  # Gumbel-max: sampling is an argmax too
            scores = scores + gumbel(self.wave.keys[rows], scores, self.seed, self.sample, steps)
        places, margins = argmax_with_margin(scores)
        for row, step, margin in zip(rows.tolist(), steps.tolist(), margins, strict=True):
            if not margin >= self.close:
                if margin != margin:
                    raise self._no_choice(row, logits)
                self.near_ties[row].append((step, margin))
        if self.processors is not None:
            self.processors.note(rows, steps, places)
        return places

    def _no_choice(self, row: int, logits: Tensor) -> DlbenchError:
        """The error for logits that have no argmax."""
        where = f"document {self.wave.requests[row].id}: "
        if self.processors is not None and bool(torch.isfinite(logits).all()):
            return DlbenchError(f"{where}what generation_config.json asks for leaves it no token to write")
        kind = MethodError if self._under() else DlbenchError
        return kind(f"{where}the logits are not finite{self._under()}")

    def _under(self) -> str:
        """The method, for messages; nothing at full depth."""
        return ""

    def _generation(self, row: int) -> Generation:
        prompts, again, ledger = self.wave.ledger, self.again, self.ledger
        return Generation(
            tokens=self.written[row],
            layers=ledger.depths[row],
            routes=ledger.routes[row],
            flops=ledger.total(row),
            executed=int(ledger.executed[row]),
            prompt_flops=sum(prompts.total(row).values()) + sum(again.total(row).values()),
            prompt_executed=int(prompts.executed[row]) + int(again.executed[row]),
            acted=ledger.acted or prompts.acted,
            near_ties=sorted(self.near_ties[row]),
            reread=row in self.reread,
        )


@final
class Decoding(DecodeLoop):
    """One token per row and forward, under any method."""

    def __init__(self, wave: Wave, method: Method | None, seed: int, sample: int | None, kv: str | None) -> None:
        """Prepare; see `Wave.decode`.

        Raises:
            DlbenchError: the method does not support the policy.
        """
        coupled = method is not None and method.batch_dependent
        super().__init__(wave, wave.room(), in_place=wave.in_place, coupled=coupled, seed=seed, sample=sample)
        self.routing: Routing | None = None
        if method is not None:
            self.routing = Routing(method, wave.look(seed), self._policy(method, kv))
            self.live = self.routing.live
            self.routing.view.processors = self.processors
            if wave.view is not None:
                self.routing.view.promised[:] = wave.view.promised
            self.routing.begin_texts(wave.states, self.ledger)

    def _policy(self, method: Method, kv: str | None) -> KVPolicy | None:
        """The KV policy; only per-token methods ever run a layer that an earlier token of the row has skipped."""
        name = kv or method.kv[0]
        if name not in method.kv:
            raise DlbenchError(
                f"method {type(method).__name__} does not support kv policy {name!r}: it has {', '.join(method.kv)}"
            )
        if method.scope != "token":
            return None
        policy = policies.load(name)(self.cache, self.wave.span)
        policy.states_overwritten = self.wave.runtime.overwrites_states(self.cache)
        self.cache.companion = policy
        return policy

    def _under(self) -> str:
        return "" if self.routing is None else f", under method {type(self.routing.method).__name__}"

    def run(self) -> list[Generation]:
        generations = super().run()
        if self.routing is not None:
            for generation, near in zip(generations, self.routing.view.near_ties, strict=True):
                generation.near_ties = sorted([*generation.near_ties, *((step + 1, margin) for step, margin in near)])
        return generations

    def _advance(self) -> None:
        cache = self.cache
        cache.make_room(self.wave.columns)
        past = cache.seen - cache.starts[: cache.alive]
        traffic = Traffic(np.ones_like(past), past, 1, cache.seen - cache.left)
        if self.routing is not None:
            self.routing.view.at_steps(cache.steps)
            if self.routing.method.uses_future:
                self.routing.view.ahead = self._states_ahead(traffic)
        logits = self.wave.forward(cache, self.tokens[: cache.alive, None], traffic, self.ledger, self.routing)
        self.ledger.close_step()
        self._write([[token] for token in self._choose(logits, cache.order[: cache.alive]).tolist()])

    def _states_ahead(self, traffic: Traffic) -> list[Tensor]:
        """States of the present tokens at full depth, before each layer and after the last; not charged.

        The keys and values of this forward are overwritten by the real one.
        """
        states: list[Tensor] = []
        free = Ledger(self.wave.runtime.costs, len(self.written), metered=False)
        tokens = self.tokens[: self.cache.alive, None]
        options = ForwardOptions(lambda layer, x: states.append(x[:, 0].clone()))
        with self.cache.ahead():
            self.wave.forward(self.cache, tokens, traffic, free, None, options)
        return states
