"""Greedy decoding of a wave of prompts: one prefill, then any number of decoding runs from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlbench.backbones import Backbone
from dlbench.engine import noise
from dlbench.engine.arguments import Angles
from dlbench.engine.cache import RowCache, Slots
from dlbench.engine.debts import POLICIES, Debts
from dlbench.engine.fused import NotFused, fuse
from dlbench.engine.gate import Gates
from dlbench.engine.meter import Costs, Ledger, Traffic
from dlbench.engine.stops import Stopper
from dlbench.engine.view import LiveView, tight_below
from dlbench.errors import DlbenchError
from dlbench.method import Method


@dataclass(frozen=True)
class Request:
    """One prompt to continue."""

    id: str
    """Keys the noise: the same document gets the same noise in every batch."""
    ids: tuple[int, ...]
    limit: int
    """Most new tokens."""
    stop: tuple[str, ...] = ()
    """Texts that end the continuation; the tokens that complete one are counted."""


@dataclass
class Generation:
    """What was written for one request, and what it cost."""

    tokens: list[int]
    """New tokens, the end token included."""
    layers: list[float]
    """Executed layers per decode forward: len(tokens) - 1 entries; half a layer counts by its share of the FLOPs."""
    routes: list[tuple[bytes, int]]
    """What each decoded token did, one Action per layer, and how many forwards in a row did the same."""
    flops: dict[str, int]
    """Credited FLOPs of decoding, by category."""
    executed: int
    """Executed FLOPs of decoding, padding included."""
    prompt_flops: int
    prompt_executed: int
    acted: bool
    """Whether any token of this run's wave skipped or exited."""
    tight: list[tuple[int, float]] = field(default_factory=list)
    """Steps whose argmax or threshold was decided by less than the dtype's rounding: (index of the token, margin)."""


class Engine:
    """Decodes on one backbone; holds no weights of its own and leaves the model as it was."""

    def __init__(self, backbone: Backbone, *, metered: bool = True, kernels: Literal["auto", "stock"] = "auto") -> None:
        """Prepare a backbone.

        Args:
            backbone: stays untouched between calls.
            metered: False counts no FLOPs (all are 0), for timing; executed layers are always counted.
            kernels: "auto" decodes with fused layers where they prove equal to the model's own; "stock" runs these.
        """
        self.backbone = backbone
        self.costs = Costs(backbone)
        self.metered = metered
        self.kernels = "stock"
        """What decode steps run: "fused" or "stock" layers."""
        self.kernels_note = ""
        """Why the layers are not fused, where they were to be."""
        fused = None
        if kernels == "auto":
            try:
                fused = fuse(backbone)
                self.kernels = "fused"
            except NotFused as reason:
                self.kernels_note = str(reason)
        self.gates = Gates(backbone, self.costs, fused, accelerate=kernels == "auto")
        self.stopper = Stopper(backbone.tokenizer)

    @torch.inference_mode()
    def prefill(self, requests: Sequence[Request], method: Method | None = None, seed: int = 0) -> Wave:
        """Run the prompts once, left-padded to the longest.

        Args:
            requests: one row each.
            method: routes the prompt too (`prompt = routed`); None runs every layer (`prompt = full`).
            seed: seed of the method's noise.

        Raises:
            DlbenchError: a per-token method was asked to route prompts, or a text does not fit the context.
        """
        if method is not None and method.scope == "token":
            raise DlbenchError(
                f"{type(method).__name__} decides per token; prompt = routed is for static and per-sequence methods"
            )
        for r in requests:
            if not r.ids or r.limit < 1 or len(r.ids) + r.limit > self.backbone.context:
                raise DlbenchError(
                    f"document {r.id}: {len(r.ids)} prompt tokens and {r.limit} new ones do not fit a context of "
                    f"{self.backbone.context}"
                )
        return Wave(self, tuple(requests), method, seed)


class Wave:
    """Prompts that have been read, ready to be decoded by any number of methods. Made by `Engine.prefill`."""

    def __init__(self, engine: Engine, requests: tuple[Request, ...], method: Method | None, seed: int) -> None:
        self.engine, self.requests, self.method, self.seed = engine, requests, method, seed
        device = engine.backbone.device
        rows = len(requests)
        lengths = np.array([len(r.ids) for r in requests], dtype=np.int64)
        self.columns = int(lengths.max())
        self.limits = np.array([r.limit for r in requests], dtype=np.int64)
        self.starts = self.columns - lengths
        self.keys = np.array([noise.key_of(r.id) for r in requests], dtype=np.uint64)
        total = self.columns + int(self.limits.max())
        mask = torch.ones(rows, total, dtype=torch.long)
        ids = torch.zeros(rows, self.columns, dtype=torch.long)
        for i, r in enumerate(requests):
            mask[i, : self.starts[i]] = 0
            ids[i, self.starts[i] :] = torch.tensor(r.ids)
        self.padded = bool(self.starts.any())
        self.mask = mask.to(device)
        self.positions = (self.mask.cumsum(-1) - 1).clamp_(min=0)
        self.cache = RowCache(engine.costs.windows, rows, total)
        self.angles = Angles(engine.gates.kinds, total)
        self.ledger = Ledger(engine.costs, rows, engine.metered)
        self.view = view = None if method is None else self._view(seed)
        if view is not None:
            view.at_step(-1)
        traffic = Traffic(lengths, lengths**2, self.columns, self.columns**2)
        self.tight: list[tuple[int, float] | None] = [None] * rows
        with engine.gates.installed():
            self.first = self._forward(ids.to(device), traffic, self.ledger, method, view)

    def _view(self, seed: int) -> LiveView:
        backbone = self.engine.backbone
        margin = tight_below(backbone.precision)
        return LiveView(backbone.depth, seed, self.keys, self.limits, len(self.requests), margin)

    def _forward(
        self,
        ids: Tensor,
        traffic: Traffic,
        ledger: Ledger,
        method: Method | None,
        view: LiveView | None,
        debts: Debts | None = None,
    ) -> Tensor:
        """One forward of the alive rows; returns the logits of the last position, [alive, vocabulary]."""
        cache, gates = self.cache, self.engine.gates
        order = cache.order[: cache.alive]
        ledger.begin(order.copy(), traffic)
        gates.begin(cache, ledger, method, view, self.starts[order], debts, self.angles)
        mask, positions = self.mask, self.positions
        if cache.alive < cache.batch or not np.array_equal(order, np.arange(len(order))):
            index = torch.from_numpy(order).to(mask.device)
            mask, positions = mask[index], positions[index]
        end = cache.seen + ids.shape[1]
        out = self.engine.backbone.model(
            input_ids=ids,
            attention_mask=mask[:, :end] if self.padded else None,
            position_ids=positions[:, cache.seen : end],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache.advance(ids.shape[1])
        ledger.finish()
        return out.logits[:, -1]  # type: ignore[no-any-return]

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
        cache, rows = self.cache, len(self.requests)
        cache.rewind(self.columns)
        ledger = Ledger(self.engine.costs, rows, self.engine.metered)
        debts = self._debts(method, kv)
        view = None if method is None else self._view(seed)
        if view is not None and self.view is not None:
            view.promised[:] = self.view.promised
        written: list[list[int]] = [[] for _ in range(rows)]
        tight: list[list[tuple[int, float]]] = [[] for _ in range(rows)]
        logits = self.first
        with self.engine.gates.installed():
            for step in range(int(self.limits.max())):
                order = cache.order[: cache.alive]
                tokens = self._choose(logits, order, step, seed, sample, tight)
                host = tokens.tolist()
                going = []
                for slot, (row, token) in enumerate(zip(order.tolist(), host, strict=True)):
                    written[row].append(token)
                    if not self._ended(row, written[row]):
                        going.append(slot)
                if not going:
                    break
                if len(going) < cache.alive:
                    source = cache.keep(going)
                    tokens = tokens[torch.tensor(source, device=tokens.device)]
                order = cache.order[: cache.alive]
                context = cache.seen + 1 - self.starts[order]
                traffic = Traffic(np.ones_like(context), context, 1, cache.seen + 1)
                if view is not None:
                    view.at_step(step)
                logits = self._forward(tokens[:, None], traffic, ledger, method, view, debts)
                ledger.close_step()
        if view is not None:
            for row, near in enumerate(view.tight):
                tight[row] += [(step + 1, margin) for step, margin in near]
        return [self._generation(row, written[row], ledger, sorted(tight[row])) for row in range(rows)]

    def _debts(self, method: Method | None, kv: str | None) -> Debts | None:
        """The policy of a decoding run; only per-token methods ever come back to a layer that they passed by."""
        if method is None:
            return None
        policy = kv or method.kv[0]
        if policy not in method.kv:
            raise DlbenchError(
                f"method {type(method).__name__} does not support kv policy {policy!r}: it has {', '.join(method.kv)}"
            )
        if method.scope != "token":
            return None
        debts = POLICIES[policy](self.cache)
        self.cache.companion = debts
        return debts

    def nbytes(self) -> int:
        """Memory that the wave's keys and values hold, in bytes."""
        return self.cache.nbytes()

    def _generation(self, row: int, tokens: list[int], ledger: Ledger, tight: list[tuple[int, float]]) -> Generation:
        return Generation(
            tokens=tokens,
            layers=ledger.depths[row],
            routes=ledger.routes[row],
            flops=ledger.total(row),
            executed=int(ledger.executed[row]),
            prompt_flops=sum(self.ledger.total(row).values()),
            prompt_executed=int(self.ledger.executed[row]),
            acted=ledger.acted or self.ledger.acted,
            tight=tight,
        )

    def _ended(self, row: int, tokens: list[int]) -> bool:
        request = self.requests[row]
        return (
            len(tokens) >= request.limit
            or tokens[-1] in self.engine.backbone.eos
            or (bool(request.stop) and self.engine.stopper.hit(tokens, request.stop))
        )

    def _choose(
        self,
        logits: Tensor,
        order: Slots,
        step: int,
        seed: int,
        sample: int | None,
        tight: list[list[tuple[int, float]]],
    ) -> Tensor:
        """The next token of each alive row; notes where the best two were close."""
        scores: Any = logits.float()
        if sample is not None:  # Gumbel-max: an argmax again, so one code path
            u = noise.uniform(self.keys[order], scores.shape[1], 0x5A, seed, sample, step)
            scores = scores - torch.from_numpy(np.log(-np.log(u + 1e-300) + 1e-300)).to(scores)
        best = scores.max(-1)
        second = scores.scatter(1, best.indices[:, None], -torch.inf).max(-1).values
        margins = (best.values - second).tolist()
        close = tight_below(self.engine.backbone.precision)
        for row, margin in zip(order.tolist(), margins, strict=True):
            if not margin >= close:
                if margin != margin:
                    raise DlbenchError(f"document {self.requests[row].id}: the logits are not finite")
                tight[row].append((step, margin))
        return best.indices  # type: ignore[no-any-return]
