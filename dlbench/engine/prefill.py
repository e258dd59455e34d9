"""A wave of prompts: read once, decoded by any number of methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dlbench.engine import keyed_rng
from dlbench.engine.decoding import Decoding, Run
from dlbench.engine.flops.ledger import Ledger, Traffic
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.layers.call_args import Angles
from dlbench.engine.requests import Generation, Request
from dlbench.engine.routing.live_view import LiveView, tight_below
from dlbench.engine.routing.method_plan import NOBODY, Plan, Routing
from dlbench.engine.routing.prompt_states import PromptStates
from dlbench.engine.speculative import Speculating
from dlbench.errors import DlbenchError
from dlbench.method import Draft, Method

if TYPE_CHECKING:
    from dlbench.engine.engine import Engine


@dataclass(frozen=True)
class Chunk:
    """Rows whose prompts were read together, left-padded to the longest."""

    rows: Slots
    """Indices within the wave."""
    cache: RowCache
    first: Tensor
    """Logits after the prompts: [rows, vocabulary]."""


class Wave:
    """Prompts that have been read, ready to be decoded by any number of methods. Made by `Engine.prefill`.

    At most `slots` rows are under way at a time. A wave of no more rows is decoded where its prompts stand; of a larger
    one every run takes copies, and a row enters as soon as another has finished. So it does where a text may have to be
    read again: that writes over the prompt.
    """

    def __init__(
        self,
        engine: Engine,
        requests: tuple[Request, ...],
        method: Method | None,
        seed: int,
        slots: int,
        watch: frozenset[int],
    ) -> None:
        self.engine, self.requests, self.method, self.seed = engine, requests, method, seed
        rows = len(requests)
        self.slots = min(slots, rows)
        self.turn = engine.turn
        self.lengths = np.array([len(r.ids) for r in requests], dtype=np.int64)
        self.limits = np.array([r.limit for r in requests], dtype=np.int64)
        self.keys = np.array([keyed_rng.key_of(r.id) for r in requests], dtype=np.uint64)
        self.in_place = rows <= self.slots and not engine.turning(requests)
        """Whether decoding goes on where the prompts stand."""
        self.columns = int(self.lengths.max())
        self.span = int(self.limits.max())
        self.angles = Angles(engine.gates.kinds, int((self.lengths + self.limits).max()))
        self.ledger = Ledger(engine.costs, rows, engine.metered)
        self.view = None if method is None else self.look(seed)
        self.states = PromptStates(engine.backbone.depth, rows, watch)
        routing = None
        if method is not None and self.view is not None:
            routing = Routing(method, self.view, None)
        with engine.gates.installed():
            starts = range(0, rows, self.slots)
            self.chunks = [self._read(np.arange(i, min(i + self.slots, rows)), routing) for i in starts]
        self._moving: RowCache | None = None

    def _read(self, rows: Slots, routing: Routing | None) -> Chunk:
        """Run the prompts of some rows."""
        lengths = self.lengths[rows]
        columns = int(lengths.max())
        cache = self._cache(len(rows), columns + (self.span if self.in_place else 0), lasting=self.in_place)
        cache.seat(rows, lengths, columns)
        ids = torch.zeros(len(rows), columns, dtype=torch.long)
        for i, row in enumerate(rows.tolist()):
            ids[i, columns - len(self.requests[row].ids) :] = torch.tensor(self.requests[row].ids)
        traffic = Traffic(lengths, np.zeros_like(lengths), columns, 0)
        watch = None
        if self.states.layers:
            watch = partial(self.states.note, rows=rows, starts=columns - lengths)
        device = self.engine.backbone.device
        first = self.forward(cache, ids.to(device), traffic, self.ledger, routing, watch)
        return Chunk(rows, cache, first)

    def read_again(self, row: int, ids: Sequence[int], ledger: Ledger) -> RowCache:
        """Read what a text has become, as its prompt was read, but with the angles of a longer one.

        Args:
            row: of the wave.
            ids: its prompt and what it wrote.
            ledger: charged.
        """
        count = np.array([len(ids)])
        cache = self._cache(1, len(ids), lasting=False)
        cache.seat(np.array([row]), count, len(ids))
        routing = None
        if self.method is not None and self.view is not None:
            routing = Routing(self.method, self.view, None)
        traffic = Traffic(count, np.zeros_like(count), len(ids), 0)
        tokens = torch.tensor([ids], device=self.engine.backbone.device)
        self.forward(cache, tokens, traffic, ledger, routing, length=len(ids) + 1)
        return cache

    def look(self, seed: int) -> LiveView:
        """A view on this wave's rows."""
        backbone = self.engine.backbone
        return LiveView(backbone, seed, self.keys, self.limits, tight_below(backbone.precision))

    def forward(
        self,
        cache: RowCache,
        ids: Tensor,
        traffic: Traffic,
        ledger: Ledger,
        routing: Plan | None,
        watch: Callable[[int, Tensor], None] | None = None,
        keep: int = 1,
        length: int = 0,
    ) -> Tensor:
        """One forward of a cache's living rows.

        Args:
            cache: takes the new keys and values.
            ids: tokens, [alive, positions].
            traffic: what each row brings.
            ledger: charged.
            routing: None runs every layer.
            watch: called with each layer and the states that would enter it.
            keep: positions whose logits are wanted, the last ones.
            length: see `Gates.begin`.

        Returns:
            Logits, [alive, vocabulary]; where several are kept, [alive, keep, vocabulary].
        """
        ledger.begin(cache.order[: cache.alive].copy(), traffic)
        gates, width, stack = self.engine.gates, ids.shape[1], self.engine.stack
        gates.begin(cache, ledger, routing, self.angles, watch, length)
        if stack is not None and width == 1:
            captures = self.engine.captures
            steps = stack if captures is None else captures.of(cache, routing) or stack
            logits = steps.step(gates, ids, cache)
        else:
            logits = self._stock(cache, ids, keep)
        cache.advance(width)
        known = [] if routing is None else [slots for slots, _ in routing.known]
        ledger.finish(np.concatenate(known) if known else NOBODY, keep)
        return logits

    def _stock(self, cache: RowCache, ids: Tensor, keep: int) -> Tensor:
        """The same by the model's own forward, with gates before its layers."""
        width, device = ids.shape[1], ids.device
        starts = on(cache.starts[: cache.alive, None].copy(), device)
        begin, end = cache.seen, cache.seen + width
        positions = (torch.arange(begin, end, device=device) - starts).clamp_(min=0)
        mask = None
        if cache.padded:
            mask = (torch.arange(cache.left, end, device=device) >= starts).long()
        out = self.engine.backbone.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = out.logits
        return logits[:, -1] if keep == 1 else logits[:, -keep:]

    @torch.inference_mode()
    def decode(
        self, method: Method | None = None, *, seed: int = 0, sample: int | None = None, kv: str | None = None
    ) -> list[Generation]:
        """Continue every prompt to its end.

        Args:
            method: routes each decode forward; None runs every layer.
            seed: seed of the method's noise, and of the sampling.
            sample: None decodes greedily; a number draws from the model's distribution with that stream of noise.
            kv: policy for the keys and values of skipped tokens; None takes the method's own.

        Returns:
            One Generation per request, in the order of the requests.

        Raises:
            DlbenchError: the prompt was routed by another method, or the method does not support the policy.
        """
        if self.method is not None and (
            type(method) is not type(self.method) or method.params() != self.method.params() or seed != self.seed
        ):
            raise DlbenchError("this wave's prompt was routed by another method, or with another seed")
        if isinstance(method, Draft):
            if sample is not None:
                raise DlbenchError(f"{type(method).__name__} verifies greedy drafts: it does not sample")
            run: Run = Speculating(self, method)
        else:
            run = Decoding(self, method, seed, sample, kv)
        with self.engine.gates.installed():
            return run.run()

    def room(self, more: int | None = None) -> RowCache:
        """The cache of the next run: that of the prompts themselves, or an empty one of as many slots.

        Args:
            more: columns that a run writes at once beyond the next, of which some may be written again; None for a run
                that goes column by column. Only this one can take the prompts' own.
        """
        if self.in_place:
            cache = self.chunks[0].cache
            cache.rewind(self.columns)
            if more is None:
                return cache
        # twice the new tokens: when it is full, all columns that the living do not fill are on the left
        length = self.columns + 2 * self.span + (more or 0)
        if self._moving is None or self._moving.length < length:
            self._moving = self._cache(self.slots, length, lasting=True)
        self._moving.empty(self.columns)
        return self._moving

    def _cache(self, slots: int, length: int, *, lasting: bool) -> RowCache:
        """An empty cache; in memory that outlives the wave where steps are captured over it."""
        cache = RowCache(self.engine.costs.windows, slots, length)
        if lasting and self.engine.captures is not None:
            depth = self.engine.backbone.depth
            self.engine.captures.settle(cache, None if self.method is None else self.method.live(depth))
        return cache

    def nbytes(self) -> int:
        """Memory that the wave's keys and values hold, in bytes."""
        caches = [chunk.cache for chunk in self.chunks] + ([] if self._moving is None else [self._moving])
        return sum(cache.nbytes() for cache in caches)
