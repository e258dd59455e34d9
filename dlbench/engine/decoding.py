"""One run of a method over a wave: rows take slots, write until they end, and make room for those that wait."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from dlbench.engine import keyed_rng
from dlbench.engine.flops.ledger import Ledger, Traffic
from dlbench.engine.kv.policies import POLICIES, Debts
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.requests import Generation
from dlbench.engine.routing.live_view import tight_below
from dlbench.engine.routing.method_plan import Routing
from dlbench.errors import DlbenchError
from dlbench.method import Method

if TYPE_CHECKING:
    from dlbench.engine.prefill import Chunk, Wave

_SAMPLING = 0x5A
"""Keeps the noise of sampling apart from a method's."""


def likeliest(scores: Tensor) -> tuple[Tensor, list[float]]:
    """The place of each row's highest score, the first of equal ones, and how far it is above the next.

    Args:
        scores: [rows, n], float32; changed on the way, and put back: a copy of so many numbers would cost more.

    Returns:
        Both on the host: the device is waited for once.
    """
    if scores.is_cpu:  # numpy finds a place in a fraction of the time
        table = scores.contiguous().numpy()
        found = table.argmax(-1)
        at = np.arange(len(table)), found
        highest = table[at]
        table[at] = -np.inf
        with np.errstate(invalid="ignore"):  # no number less no number is none, which the caller tells
            margins = (highest - table.max(-1)).tolist()
        table[at] = highest
        return torch.from_numpy(found), margins
    best, places = scores.max(-1, keepdim=True)
    second = scores.scatter_(1, places, -torch.inf).amax(-1)
    scores.scatter_(1, places, best)
    found = torch.stack((places[:, 0].double(), (best[:, 0] - second).double())).cpu()
    return found[0].long(), found[1].tolist()


class Run(ABC):
    """Writes every text of a wave once: rows take slots, and those that wait enter as others end.

    Where `generate` reads a text again because its rotary angles change, so does a run: the prompt and all that was
    written but for the last token, as prompts are read (all layers, or under `prompt = routed` those of the prompt).
    The last token then takes its step under the method, like every other. At full depth that is what `generate` does.
    What tokens skipped before is no longer owed: their keys and values are those of the text that was read. It costs
    what a prompt costs, and is charged as one.
    """

    def __init__(
        self, wave: Wave, cache: RowCache, *, in_place: bool, coupled: bool, seed: int, sample: int | None
    ) -> None:
        """Prepare.

        Args:
            wave: has the prompts.
            cache: takes the keys and values.
            in_place: whether all rows are in it already.
            coupled: whether the batch must stay as it was made up.
            seed: of the sampling.
            sample: stream of noise; None takes the likeliest token.
        """
        engine, rows = wave.engine, len(wave.requests)
        self.wave, self.cache, self.in_place, self.coupled = wave, cache, in_place, coupled
        self.seed, self.sample = seed, sample
        self.backbone, self.close = engine.backbone, tight_below(engine.backbone.precision)
        self.eos = engine.backbone.eos
        self.processors = engine.processors(wave.requests)
        """What the model's generation_config makes of logits; None where it leaves them as they are."""
        self.ledger = Ledger(engine.costs, rows, engine.metered)
        self.live: frozenset[int] | None = None
        """Layers whose keys and values are taken along when a row enters; None for all."""
        self.waiting: deque[tuple[Chunk, int]] = deque()
        self.tokens = torch.zeros(wave.slots, dtype=torch.long, device=engine.backbone.device)
        """What each slot's row wrote last."""
        self.written: list[list[int]] = [[] for _ in range(rows)]
        self.near_ties: list[list[tuple[int, float]]] = [[] for _ in range(rows)]
        self.again = Ledger(engine.costs, rows, engine.metered)
        """What reading texts again has cost."""
        self.reread: set[int] = set()
        """Rows that were read again."""

    def run(self) -> list[Generation]:
        """Write to the end; the gates are installed."""
        if self.in_place:
            (chunk,) = self.wave.chunks
            rows = self.cache.order[: self.cache.alive]
            self._write([[token] for token in self._choose(chunk.first, rows).tolist()])
        else:
            # long prompts tend to have long outputs: begun last, these would keep a few slots busy at the end
            chunks = reversed(self.wave.chunks)
            self.waiting.extend((chunk, place) for chunk in chunks for place in reversed(range(len(chunk.rows))))
            self._admit(list(range(self.wave.slots)))
        while self.cache.alive:
            self._read_again()
            self._advance()
        self.cache.companion = None  # else each would keep the other
        return [self._generation(row) for row in range(len(self.written))]

    @abstractmethod
    def _advance(self) -> None:
        """Let the living rows write one token or more."""

    def _read_again(self) -> None:
        """Give the rows whose next token is the first beyond the original context new keys and values."""
        cache, turn = self.cache, self.wave.turn
        if turn is None:
            return
        for slot in np.flatnonzero(cache.seen - cache.starts[: cache.alive] == turn).tolist():
            row = int(cache.order[slot])
            written = self.written[row][:-1]
            source = self.wave.read_again(row, [*self.wave.requests[row].ids, *written], self.again)
            cache.admit(np.array([slot]), source, np.array([0]), self.live, decoded=len(written))
            self.reread.add(row)

    def _write(self, texts: Sequence[Sequence[int]]) -> None:
        """Each living row writes its tokens, up to its end; waiting rows take the slots of those that end."""
        self._replace(self._put(texts)[1])

    def _put(self, texts: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """Each living row writes its tokens, up to its end: how many, and the slots of those that have ended."""
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
                self.cache.admit(slots, chunk.cache, np.array(places)[stay], self.live)
                device = self.tokens.device
                self.tokens[on(slots, device)] = tokens[stay].to(device)
                if self.coupled:
                    break
        return free

    def _ends(self, row: int, token: int) -> bool:
        """Write a row's next token; whether it was the last."""
        request, tokens = self.wave.requests[row], self.written[row]
        tokens.append(token)
        return (
            len(tokens) >= request.limit
            or token in self.eos
            or self.wave.engine.stopper.hit(tokens, request.stop, request.thinking)
        )

    def _choose(self, logits: Tensor, rows: Slots, ahead: Sequence[int] | None = None) -> Tensor:
        """The next token of each row, [rows], on the host; notes where the best two were close.

        Args:
            logits: [rows, vocabulary].
            rows: of the wave.
            ahead: tokens of each that are chosen, but not written yet.

        Raises:
            DlbenchError: the logits are not finite, or no token may be written.
        """
        scores: Any = logits.float()
        steps = np.array([len(self.written[row]) for row in rows.tolist()], dtype=np.int64)
        if ahead is not None:
            steps += np.array(ahead, dtype=np.int64)
        if self.processors is not None:
            scores = self.processors(logits, rows, steps)
        if self.sample is not None:  # Gumbel-max: an argmax again, so one code path
            u = keyed_rng.uniform(self.wave.keys[rows], scores.shape[1], _SAMPLING, self.seed, self.sample, steps)
            scores = scores - torch.from_numpy(np.log(-np.log(u + 1e-300) + 1e-300)).to(scores)
        places, margins = likeliest(scores)
        for row, step, margin in zip(rows.tolist(), steps.tolist(), margins, strict=True):
            if not margin >= self.close:
                if margin != margin:
                    raise DlbenchError(self._no_choice(row, logits))
                self.near_ties[row].append((step, margin))
        if self.processors is not None:
            self.processors.note(rows, steps, places)
        return places

    def _no_choice(self, row: int, logits: Tensor) -> str:
        """Why no token is the likeliest."""
        where = f"document {self.wave.requests[row].id}: "
        if self.processors is not None and bool(torch.isfinite(logits).all()):
            return f"{where}what generation_config.json asks for leaves it no token to write"
        return f"{where}the logits are not finite{self._under()}"

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
class Decoding(Run):
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
            self.routing = Routing(method, wave.look(seed), self._debts(method, kv))
            self.live = self.routing.live
            self.routing.view.processors = self.processors
            if wave.view is not None:
                self.routing.view.promised[:] = wave.view.promised
            self.routing.begin_texts(wave.states, self.ledger)

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
        captures = self.wave.engine.captures
        debts.volatile = captures is not None and captures.of(self.cache, None) is not None
        self.cache.companion = debts
        return debts

    def _under(self) -> str:
        return "" if self.routing is None else f", under method {type(self.routing.method).__name__}"

    def run(self) -> list[Generation]:
        found = super().run()
        if self.routing is not None:
            for generation, near in zip(found, self.routing.view.near_ties, strict=True):
                generation.near_ties = sorted([*generation.near_ties, *((step + 1, margin) for step, margin in near)])
        return found

    def _advance(self) -> None:
        cache = self.cache
        cache.make_room(self.wave.columns)
        past = cache.seen - cache.starts[: cache.alive]
        traffic = Traffic(np.ones_like(past), past, 1, cache.seen - cache.left)
        if self.routing is not None:
            self.routing.view.at_steps(cache.steps)
            if self.routing.method.uses_future:
                self.routing.view.ahead = self._foresee(traffic)
        logits = self.wave.forward(cache, self.tokens[: cache.alive, None], traffic, self.ledger, self.routing)
        self.ledger.close_step()
        self._write([[token] for token in self._choose(logits, cache.order[: cache.alive]).tolist()])

    def _foresee(self, traffic: Traffic) -> list[Tensor]:
        """States of the present tokens at full depth, before each layer and after the last; nobody is charged.

        The keys and values of this pass stand where those of the real one come to stand.
        """
        states: list[Tensor] = []
        free = Ledger(self.wave.engine.costs, len(self.written), metered=False)
        tokens = self.tokens[: self.cache.alive, None]
        self.wave.forward(self.cache, tokens, traffic, free, None, lambda layer, x: states.append(x[:, 0].clone()))
        self.cache.seen -= 1
        return states
