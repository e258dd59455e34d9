"""Count executed FLOPs (what the kernels computed, padding included) and credited FLOPs (over the true context).

Both are equal at batch 1, except for what is executed but not credited: keys that the KV policy "evict" hides (a kernel
computes their scores and masks them), experts that a model computes for every token and masks (Llama 4), and what
recurrent modules compute beyond the need of their tokens (`dlbench.models.recurrence`). In a batch, what all prompts
begin with is credited to each and executed once (`dlbench.engine.shared_prefix`), padding is executed, and a layer may
compute things for rows that skip it, where that is faster than to leave them out (`Extra`). A forward is only noted
while it runs; sums are made over many forwards at once, or when they are asked for.

Shape letters: L layers, B living rows of a forward, N rows of all forwards that are summed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlbench.engine.flops.costs import CATEGORIES, Costs, Ints
from dlbench.engine.flops.extra import Extra
from dlbench.method import Action

_ATTN = int(Action.ATTN)
_NOTED = 64
"""Forwards after which the noted ones are summed."""


@dataclass(frozen=True)
class Traffic:
    """The tokens of each living row in one forward."""

    tokens: Ints
    """New tokens of each row, without padding: [B]."""
    past: Ints
    """Tokens before them, without padding: [B]."""
    columns: int
    """New tokens per row as executed, padding included."""
    padded_past: int
    """Tokens before them per row as executed, padding included."""


@dataclass
class _Forward:
    """A noted forward; slot i is the i-th of its living rows."""

    step: int
    """Steps closed before it."""
    rows: Ints
    """[B]"""
    traffic: Traffic
    ran: NDArray[np.uint8]
    """The part of each layer that each row ran, an Action: [L, B]."""
    filled: list[tuple[int, Ints]] = field(default_factory=list)
    """Layer, and the slot of each past token whose keys and values it made."""
    again: list[Ints] = field(default_factory=list)
    """Rows of past tokens that ran a layer."""
    beside: list[tuple[int, Extra, bool]] = field(default_factory=list)
    """Layer, what it computed for each row that skipped it, and whether later tokens may need keys and values of it."""
    hidden: list[tuple[Ints, Ints]] = field(default_factory=list)
    """Rows that ran a layer's attention, and the FLOPs of the keys that were hidden from each."""
    wanted: Ints = field(init=False)
    """Positions of each row whose logits were wanted, without padding: [B]."""
    made: Ints | int = field(init=False)
    """Positions of each row whose logits were computed: [B], or one number for all."""


class Ledger:
    """Counts per row of a wave. Between `begin` and `finish`, slots are those of the present forward."""

    def __init__(self, costs: Costs, rows: int, metered: bool = True) -> None:
        self.costs, self.metered = costs, metered
        self.acted = False
        """Whether any token has skipped a layer or exited."""
        self._flops: dict[str, Ints] = {c: np.zeros(rows, dtype=np.int64) for c in CATEGORIES}
        self._executed: Ints = np.zeros(rows, dtype=np.int64)
        self._depths: list[list[float]] = [[] for _ in range(rows)]
        self._routes: list[list[tuple[bytes, int]]] = [[] for _ in range(rows)]
        self._noted: list[_Forward] = []
        self._ahead: NDArray[np.int64] | None = None
        """Tokens of each row whose keys and values were made, but not needed so far, per layer: [L, rows]."""
        self._closed: list[tuple[Ints, Sequence[int]]] = []
        """Rows of each step, and how many tokens each row wrote in it."""

    def begin(self, rows: Ints, traffic: Traffic) -> None:
        """Start a forward of these rows: slot i is rows[i]. The arrays are kept without a copy."""
        self.rows = rows
        ran = np.zeros((len(self.costs.layer), len(rows)), dtype=np.uint8)
        self._now = _Forward(len(self._closed), rows, traffic, ran)

    def layer(self, index: int, part: int, slots: Ints | None) -> None:
        """Note that some rows, or all, run a layer or a sub-layer."""
        self._now.ran[index, slice(None) if slots is None else slots] = part

    def past_layer(self, index: int, slots: Ints, context: Ints, padded: int) -> None:
        """Charge past tokens, one per entry of `slots`, that run a layer over the context they had when new."""
        rows, window = self.rows[slots], self.costs.windows[index]
        self._now.again.append(rows)
        linear, per_key = int(self.costs.layer[index]), self.costs.per_key(index)
        keys, recurrence = context if window is None else np.minimum(context, window), self.costs.recurrences[index]
        dropped = 0 if recurrence is None else recurrence.step - recurrence.token
        executed = np.full(len(rows), int(self.costs.executed_layer[index]) + dropped + per_key * padded)
        self._charge("kv", rows, linear + per_key * keys, executed)

    def fill(self, index: int, slots: Ints) -> None:
        """Note that keys and values of past tokens are made, one token per entry of `slots`."""
        self._now.filled.append((index, slots))

    def beside(self, index: int, extra: Extra, *, kept: bool) -> None:
        """Note what a layer computed for rows that skip it; keys and values are credited once a later token attends.

        Args:
            index: of the layer.
            extra: what was computed for each row.
            kept: whether their keys and values may be needed later.
        """
        self._now.beside.append((index, extra, kept))

    def read_again(self, row: int) -> None:
        """Note that all keys and values of a row have been made anew, between two steps."""
        self._sum()
        if self._ahead is not None:
            self._ahead[:, row] = 0

    def hide(self, index: int, slots: Ints | None, keys: Ints) -> None:
        """Note how many keys a layer's mask hides from each of some rows, or of all."""
        flops = self.costs.per_key(index) * keys
        self._now.hidden.append((self.rows if slots is None else self.rows[slots], flops))

    def router(self, rows: Ints, flops: int) -> None:
        """Charge a method's own products to these rows, divided among them to the last FLOP."""
        each = _divided(flops, len(rows))
        self._charge("router", rows, each, each)

    def exit_head(self, rows: Ints, own: int | None = None) -> None:
        """Charge the logits of these rows that a method asked for.

        Args:
            rows: of the wave.
            own: FLOPs of the method's own head for all together, divided to the last FLOP; None for the model's.
        """
        each = np.full(len(rows), self.costs.head) if own is None else _divided(own, len(rows))
        self._charge("heads", rows, each, each)

    def share(self, flops: int) -> None:
        """Charge executed FLOPs of reading what all rows have in common, divided among them to the last FLOP."""
        rows = np.arange(len(self._executed))
        each = _divided(flops, len(rows))
        self._charge("layers", rows, 0 * each, each)

    def finish(self, known: Ints, keep: int = 1, wanted: Ints | None = None) -> None:
        """End the forward, which computed the logits of the last positions.

        Args:
            known: slots whose logits were known, because the method had asked for them before the token exited.
            keep: positions whose logits were computed, of every row.
            wanted: positions of each row whose logits were wanted; None: those computed, without padding.
        """
        now = self._now
        made: Ints | int = keep
        wanted = np.minimum(now.traffic.tokens, keep) if wanted is None else wanted
        if len(known):
            made, wanted = np.full(len(now.rows), keep), wanted.copy()
            made[known] = wanted[known] = 0
        now.made, now.wanted = made, wanted
        self._noted.append(now)

    def close_step(self, tokens: Sequence[int] | None = None) -> None:
        """End a step: one decode forward, or several that wrote the given number of tokens of each living row."""
        self._closed.append((self.rows, [1] * len(self.rows) if tokens is None else tokens))
        if len(self._noted) >= _NOTED:
            self._sum()

    @property
    def depths(self) -> list[list[float]]:
        """Executed layers per decoded token of each row; a sub-layer counts by its share of the linear FLOPs."""
        self._sum()
        return self._depths

    @property
    def routes(self) -> list[list[tuple[bytes, int]]]:
        """Runs of equal decode forwards of each row: one byte (an Action) per layer, and how many forwards in a row."""
        self._sum()
        return self._routes

    @property
    def executed(self) -> Ints:
        """Executed FLOPs of each row."""
        self._sum()
        return self._executed

    def total(self, row: int) -> dict[str, int]:
        """Credited FLOPs of one row, by category."""
        self._sum()
        return {c: int(self._flops[c][row]) for c in CATEGORIES}

    def _sum(self) -> None:
        """Add up what was noted since the last call."""
        if not self._noted:
            return
        ran = np.concatenate([f.ran for f in self._noted], 1)  # [L, N]
        rows = np.concatenate([f.rows for f in self._noted])
        tokens = np.concatenate([f.traffic.tokens for f in self._noted])
        if self._closed:
            self._steps(ran, rows, tokens)
        if self.metered:
            self._flops_of(ran, rows, tokens)
        self._noted, self._closed = [], []

    def _steps(self, ran: NDArray[np.uint8], rows: Ints, tokens: Ints) -> None:
        """Depths and routes of the closed steps."""
        depth, shape = len(ran), (len(self._closed), len(self._depths))
        steps = np.repeat([f.step for f in self._noted], [len(f.rows) for f in self._noted])
        calls = np.zeros(shape)
        np.add.at(calls, (steps, rows), tokens * self.costs.shares[ran, np.arange(depth)[:, None]].sum(0))
        codes = np.zeros((*shape, depth), dtype=np.uint8)
        for forward in self._noted:
            for again in forward.again:
                np.add.at(calls[forward.step], again, 1.0)
            codes[forward.step, forward.rows] |= forward.ran.T
        for (living, counts), layers, actions in zip(self._closed, calls, codes, strict=True):
            for row, count in zip(living.tolist(), counts, strict=True):
                # rounded: the order of the sum may depend on how many rows are summed at once
                self._depths[row] += [round(float(layers[row]) / count, 9)] * count
                route, runs = actions[row].tobytes(), self._routes[row]
                if runs and runs[-1][0] == route:
                    runs[-1] = route, runs[-1][1] + count
                else:
                    runs.append((route, count))

    def _flops_of(self, ran: NDArray[np.uint8], rows: Ints, tokens: Ints) -> None:
        """Charge layers, attention, heads, and keys and values."""
        noted, costs = self._noted, self.costs
        sizes = [len(f.rows) for f in noted]
        past = np.concatenate([f.traffic.past for f in noted])
        columns = np.repeat([f.traffic.columns for f in noted], sizes)
        padded = np.repeat([f.traffic.padded_past for f in noted], sizes)
        wanted = np.concatenate([f.wanted for f in noted])
        made = np.concatenate([np.broadcast_to(f.made, len(f.rows)) for f in noted])
        linear, executed = (of[ran, np.arange(len(ran))[:, None]].sum(0) for of in (costs.parts, costs.executed_parts))
        self._charge("layers", rows, linear * tokens, executed * columns)
        attended = ran & _ATTN > 0
        for recurrence, layers in costs.states.items():
            # `layers` above holds what each token needs; kernels compute more
            computed = np.where(padded == 0, recurrence.begun(columns), recurrence.step * columns)
            times = attended[layers].sum(0)
            self._charge("layers", rows, 0 * times, times * (computed - recurrence.token * columns))
        for window, layers in costs.spans.items():
            times = (attended[layers] * costs.attention_per_key[layers, None]).sum(0)
            # several new tokens count the full square
            before, filled = (x if window is None else np.minimum(x, window - 1) for x in (past, padded))
            expansion = (attended[layers] * costs.expansion_per_key[layers, None]).sum(0)
            credited, executed = times * tokens + expansion, times * columns + expansion
            self._charge("attention", rows, credited * (before + tokens), executed * (filled + columns))
        if hidden := [of for f in noted for of in f.hidden]:
            flops = np.concatenate([flops for _, flops in hidden])
            self._charge("attention", np.concatenate([r for r, _ in hidden]), -flops, 0 * flops)
        # projections around the stack run at every position, the LM head where logits are wanted
        fixed, vocabulary = costs.input + costs.head - costs.vocabulary, costs.vocabulary
        self._charge("heads", rows, fixed * tokens + vocabulary * wanted, fixed * columns + vocabulary * made)
        self._beside(noted)
        fills = [(index, f.rows[slots]) for f in noted for index, slots in f.filled]
        if fills:
            flops = np.repeat([costs.fill[index] for index, _ in fills], [len(of) for _, of in fills])
            self._charge("kv", np.concatenate([of for _, of in fills]), flops, flops)

    def _beside(self, noted: Sequence[_Forward]) -> None:
        """Charge what layers computed for rows that skipped them, and credit keys and values that were needed."""
        costs = self.costs
        for f in noted:
            if self._ahead is not None:
                needed = np.where(f.ran & _ATTN > 0, self._ahead[:, f.rows], 0)
                if needed.any():
                    self._charge("kv", f.rows, costs.fill @ needed, 0 * f.rows)
                    self._ahead[:, f.rows] -= needed
            computed = 0 * f.rows
            for index, extra, kept in f.beside:
                absent = f.ran[index] == 0
                keys, window = f.traffic.padded_past + 1, costs.windows[index]
                keys = keys if window is None else min(keys, window)
                computed += absent * (extra.linear + (costs.per_key(index) * keys if extra.attended else 0))
                if kept:
                    if self._ahead is None:
                        self._ahead = np.zeros((len(costs.layer), len(self._executed)), dtype=np.int64)
                    self._ahead[index, f.rows] += absent
            if f.beside:
                self._charge("kv", f.rows, 0 * computed, computed)

    def _charge(self, category: str, rows: Ints, flops: Ints, executed: Ints) -> None:
        """Add credited and executed FLOPs to rows; a row may stand several times."""
        if self.metered:
            np.add.at(self._flops[category], rows, flops)
            np.add.at(self._executed, rows, executed)


def _divided(flops: int, rows: int) -> Ints:
    """FLOPs of some rows together, for each of them: [rows]."""
    divided: Ints = (flops + np.arange(rows)) // rows
    return divided
