"""A wave of prompts: read once, decoded by any number of methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, final

import numpy as np
import torch
from torch import Tensor

from dlbench.engine import keyed_rng
from dlbench.engine.flops.ledger import Ledger, Traffic
from dlbench.engine.interfaces import NOBODY, Plan
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.layers.rotary_tables import Angles
from dlbench.engine.requests import Generation, Request, near_tie_below
from dlbench.engine.routing.live_view import LiveView
from dlbench.engine.routing.method_plan import Routing
from dlbench.engine.routing.prompt_states import PromptStates, StateSums
from dlbench.engine.runtime import Runtime
from dlbench.engine.shared_prefix import Prefix
from dlbench.errors import DlbenchError
from dlbench.method import Method


@dataclass(frozen=True)
class Chunk:
    """Rows whose prompts were read together, left-padded to the longest."""

    rows: Slots
    """Indices within the wave."""
    cache: RowCache
    first: Tensor
    """Logits after the prompts: [rows, vocabulary]."""


@dataclass(frozen=True)
class ForwardOptions:
    """What one forward does beside computing the logits of the last position."""

    watch: Callable[[int, Tensor], None] | None = None
    """Called with each layer and the states that would enter it."""
    keep: int = 1
    """Positions whose logits are wanted, the last ones."""
    length: int = 0
    """See `Gates.begin`."""


_DEFAULT = ForwardOptions()


class Loop(Protocol):
    """Decodes a wave once."""

    def run(self) -> list[Generation]:
        """Write every text to its end; the gates are installed."""
        ...


class PickLoop(Protocol):
    """Picks the loop for a method; see `Wave.decode` for the arguments."""

    def __call__(self, wave: Wave, method: Method | None, seed: int, sample: int | None, kv: str | None) -> Loop: ...


@final
class Wave:
    """Prompts that have been read, ready to be decoded by any number of methods. Made by `Engine.prefill`.

    At most `slots` rows are decoded at a time. A wave of no more rows than that is decoded in the cache of its prompts.
    In a larger one every run copies the prompts, and a row enters as soon as another has finished. A run also copies
    where a text may have to be read again, since that overwrites the prompt.
    """

    def __init__(
        self,
        runtime: Runtime,
        requests: tuple[Request, ...],
        routed: tuple[Method, int] | None,
        slots: int,
        reads: frozenset[int],
        pick_loop: PickLoop,
    ) -> None:
        """Read the prompts.

        Args:
            runtime: what it runs on.
            requests: one row each.
            routed: the method that routes the prompts, and its seed; None runs every layer.
            slots: most rows read and decoded together.
            reads: layers before which the prompts' states are kept.
            pick_loop: picks the loop of each run.
        """
        self.runtime, self.requests, self._pick_loop = runtime, requests, pick_loop
        self.method: Method | None = None
        self.seed = 0
        if routed is not None:
            self.method, self.seed = routed
        rows = len(requests)
        self.slots = min(slots, rows)
        self.reread_after = runtime.reread_after
        self.lengths = np.array([len(r.ids) for r in requests], dtype=np.int64)
        self.limits = np.array([r.limit for r in requests], dtype=np.int64)
        self.keys = np.array([keyed_rng.key_of(r.id) for r in requests], dtype=np.uint64)
        self.in_place = rows <= self.slots and not runtime.may_be_reread(requests)
        """Whether rows are decoded in the cache of their prompts."""
        self.columns = int(self.lengths.max())
        self.span = int(self.limits.max())
        self.last = runtime.backbone.context - 1
        """The last position of the context."""
        self.angles = Angles(runtime.gates.kinds, int((self.lengths + self.limits).max()))
        self.ledger = Ledger(runtime.costs, rows, runtime.metered)
        self.view = None if self.method is None else self.look(self.seed)
        self.states = PromptStates(runtime.backbone.depth, rows, reads)
        routing = self._prompt_routing()
        with runtime.gates.installed():
            prefix = None if routed is not None else self._prefix()
            starts = range(0, rows, self.slots)
            self.chunks = [self._read(np.arange(i, min(i + self.slots, rows)), routing, prefix) for i in starts]
        self._moving: RowCache | None = None
        """The cache that runs copy prompts to."""

    def _prompt_routing(self) -> Routing | None:
        if self.method is None or self.view is None:
            return None
        return Routing(self.method, self.view, None)

    def _prefix(self) -> Prefix | None:
        """Read the tokens that all prompts begin with, where that spares enough."""
        count, layers = self.runtime.sharing.tokens([r.ids for r in self.requests]), self.states.layers
        if not count:
            return None
        ids, ledger = self.requests[0].ids[:count], Ledger(self.runtime.costs, 1, self.runtime.metered)
        sums = StateSums(layers, count)
        cache = self._cache(1, count, lasting=False)
        cache.seat(np.array([0]), np.array([count]), count)
        self._run(cache, [ids], None, ledger, None, ForwardOptions(sums.note if layers else None))
        self.ledger.share(int(ledger.executed[0]))
        return Prefix(count, cache, sums)

    def _read(self, rows: Slots, routing: Routing | None, prefix: Prefix | None) -> Chunk:
        """Run the prompts of some rows, after the prefix if there is one."""
        lengths = self.lengths[rows]
        columns = int(lengths.max())
        cache = self._cache(len(rows), columns + (self.span if self.in_place else 0), lasting=self.in_place)
        cache.seat(rows, lengths, columns)
        watch = None
        if self.states.layers:
            sums = None if prefix is None else prefix.sums
            watch = partial(self.states.note, rows=rows, starts=columns - lengths, prefix=sums)
        texts = [self.requests[row].ids for row in rows.tolist()]
        first = self._run(cache, texts, prefix, self.ledger, routing, ForwardOptions(watch))
        # after the prefix a single token is left to each: that is a decode step, whose logits the next may overwrite
        return Chunk(rows, cache, first.clone() if self.runtime.overwrites_states(cache) else first)

    def _run(
        self,
        cache: RowCache,
        texts: Sequence[Sequence[int]],
        prefix: Prefix | None,
        ledger: Ledger,
        routing: Plan | None,
        options: ForwardOptions,
    ) -> Tensor:
        """Run texts in one forward over as many columns as the longest has after the prefix; see `forward`.

        A shorter text has more of its tokens before these columns, in which it runs some of the prefix again: so all
        columns hold the true tokens of every row, or padding before its first.

        Args:
            cache: the texts are seated in it.
            texts: tokens of each row.
            prefix: what all texts begin with; None runs them whole.
            ledger: charged.
            routing: None runs every layer.
            options: what else is wanted.
        """
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        known = 0 if prefix is None else prefix.tokens
        columns = int(lengths.max()) - known
        if prefix is not None:
            cache.seen = known
            prefix.copy_to(cache, np.maximum(lengths - columns, 0))
        ids = torch.zeros(len(texts), columns, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            row[max(columns - len(text), 0) :] = torch.tensor(text[-columns:])
        traffic = Traffic(lengths, np.zeros_like(lengths), columns, known)
        return self.forward(cache, ids.to(self.runtime.backbone.device), traffic, ledger, routing, options)

    def read_again(self, row: int, ids: Sequence[int], ledger: Ledger) -> RowCache:
        """Read a text again as its prompt was read, but with the rotary angles of a longer text.

        Args:
            row: of the wave.
            ids: its prompt and what it wrote.
            ledger: charged.
        """
        cache = self._cache(1, len(ids), lasting=False)
        cache.seat(np.array([row]), np.array([len(ids)]), len(ids))
        self._run(cache, [ids], None, ledger, self._prompt_routing(), ForwardOptions(length=len(ids) + 1))
        return cache

    def look(self, seed: int) -> LiveView:
        """A view on this wave's rows."""
        backbone = self.runtime.backbone
        return LiveView(backbone, seed, self.keys, self.limits, near_tie_below(backbone.precision))

    def forward(
        self,
        cache: RowCache,
        ids: Tensor,
        traffic: Traffic,
        ledger: Ledger,
        routing: Plan | None,
        options: ForwardOptions = _DEFAULT,
    ) -> Tensor:
        """Run one forward of a cache's living rows.

        Args:
            cache: takes the new keys and values.
            ids: tokens, [alive, positions].
            traffic: tokens of each row.
            ledger: charged.
            routing: None runs every layer.
            options: what else is wanted.

        Returns:
            Logits, [alive, vocabulary]; of several positions, [alive, keep, vocabulary].
        """
        ledger.begin(cache.order[: cache.alive].copy(), traffic)
        gates, width, keep = self.runtime.gates, ids.shape[1], options.keep
        gates.begin(cache, ledger, routing, self.angles, options.watch, options.length)
        policy = None if routing is None else routing.kv_policy
        step = self.runtime.model_step(cache, policy) if width == 1 else None
        logits = self._stock(cache, ids, keep) if step is None else step.step(gates, ids, cache)
        cache.advance(width)
        known = [] if routing is None else [slots for slots, _ in routing.known]
        ledger.finish(np.concatenate(known) if known else NOBODY, keep)
        return logits

    def _stock(self, cache: RowCache, ids: Tensor, keep: int) -> Tensor:
        """The same by the model's own forward, whose layers have gates."""
        width, device = ids.shape[1], ids.device
        starts = on(cache.starts[: cache.alive, None].copy(), device)
        begin, end = cache.seen, cache.seen + width
        # only padding lies before a text; behind its last position, only a row that waits while others draft
        positions = (torch.arange(begin, end, device=device) - starts).clamp_(0, self.last)
        mask = None
        if cache.padded:
            mask = (torch.arange(cache.left, end, device=device) >= starts).long()
        out = self.runtime.backbone.model(
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
            sample: None decodes greedily; a number samples from the model's distribution, with that stream of noise.
            kv: KV policy for skipped tokens; None takes the method's own.

        Returns:
            One Generation per request, in the order of the requests.

        Raises:
            DlbenchError: the prompt was routed by another method, or the method does not support the policy.
        """
        if self.method is not None and (
            method is None
            or type(method) is not type(self.method)
            or method.params() != self.method.params()
            or seed != self.seed
        ):
            raise DlbenchError("this wave's prompt was routed by another method, or with another seed")
        loop = self._pick_loop(self, method, seed, sample, kv)
        with self.runtime.gates.installed():
            return loop.run()

    def room(self, more: int | None = None) -> RowCache:
        """The cache of the next run: that of the prompts themselves, or an empty one of as many slots.

        Args:
            more: columns that a run writes at once beyond the next, some of which it may write again; None for a run
                that writes one column at a time. Only such a run can use the prompts' own cache.
        """
        if self.in_place:
            cache = self.chunks[0].cache
            cache.rewind(self.columns)
            if more is None:
                return cache
        # twice the new tokens: when it is full, all columns that living rows do not fill are on the left
        length = self.columns + 2 * self.span + (more or 0)
        if self._moving is None or self._moving.length < length:
            self._moving = self._cache(self.slots, length, lasting=True)
        self._moving.empty(self.columns)
        return self._moving

    def _cache(self, slots: int, length: int, *, lasting: bool) -> RowCache:
        """An empty cache; where graphs are captured over it (`lasting`), in memory that outlives the wave."""
        cache, pool = RowCache(self.runtime.costs.windows, slots, length), self.runtime.graph_pool
        if lasting and pool is not None:
            depth = self.runtime.backbone.depth
            pool.assign(cache, None if self.method is None else self.method.live(depth))
        return cache

    def nbytes(self) -> int:
        """Memory of the wave's keys and values, in bytes."""
        caches = [chunk.cache for chunk in self.chunks] + ([] if self._moving is None else [self._moving])
        return sum(cache.nbytes() for cache in caches)
