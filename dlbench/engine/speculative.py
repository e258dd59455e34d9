"""Self-speculative decoding: draft tokens with some of the layers, verify them in one forward with the others.

A round feeds the drafting layers t, d1, .. d(n-1) and gets drafts d1 .. dn. Verification runs over the same n inputs,
and its outputs v1 .. vn are what full depth writes: drafts are accepted up to the first that differs.
Drafting with the first layers leaves exactly the states, keys and values that verification needs of these layers, so
only the rest runs; any other draft, also one of all layers, is verified by all, which overwrite what drafting has
written.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlbench.engine.decoding import DecodeLoop
from dlbench.engine.flops.ledger import Ledger, Traffic
from dlbench.engine.interfaces import Groups, Plan
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.prefill import ForwardOptions, Wave
from dlbench.engine.requests import Generation
from dlbench.method import Action, Draft


@final
class _LayerSet(Plan):
    """Runs some layers for some rows; the first of them may be entered by other states than the layer below gave."""

    resumes = True

    def __init__(self, layers: frozenset[int], depth: int) -> None:
        self.layers, self.first = layers, min(layers, default=depth)
        self.slots: Slots | None = None
        """Rows that run; None for all."""
        self.states: Tensor | None = None
        """What enters the first of the layers: [alive, positions, W]; None for the output of the layer below."""

    def begin(self, cache: RowCache, ledger: Ledger) -> None:
        return

    def decide(self, layer: int, hidden: Tensor) -> Groups:
        return [(int(Action.RUN), self.slots)] if layer in self.layers else []

    def enters(self, layer: int, hidden: Tensor) -> Tensor:
        return hidden if self.states is None or layer != self.first else self.states


@final
class Speculating(DecodeLoop):
    """Several tokens per row and round, the same tokens as at full depth."""

    def __init__(self, wave: Wave, method: Draft) -> None:
        """Prepare; see `Wave.decode`."""
        super().__init__(wave, wave.room(more=method.length - 1), in_place=False, coupled=False, seed=0, sample=None)
        depth = self.backbone.depth
        drafting = method.drafter(depth).layers(depth)
        self.method, self.most = method, method.length
        first = len(drafting) < depth and drafting == frozenset(range(len(drafting)))
        self.prefix = len(drafting) if first else None
        """How many layers drafting spares verification: where it runs the first ones, but not all; else None."""
        self.draft = _LayerSet(drafting, depth)
        self.verify = _LayerSet(frozenset(range(self.prefix or 0, depth)), depth)
        family, context = self.backbone.family, self.backbone.context
        self.columns = context if family.counts_keys or family.recognised else None
        """Most columns of the longest row where layers may take columns for positions; None for any number."""
        self.counts = np.zeros((len(wave.requests), 3), dtype=np.int64)
        """Tokens drafted, drafts accepted, rounds: per row of the wave."""

    def _advance(self) -> None:
        cache = self.cache
        cache.make_room(self.wave.columns, self.most - 1)
        rows, begin = cache.order[: cache.alive].copy(), cache.seen
        inputs, drafts, states, lengths = self._drafted(rows)
        cache.seen = begin
        self.verify.states = None if self.prefix is None else torch.stack(states, 1)
        verified = self._verified(torch.stack(inputs, 1), lengths)
        texts, accepted = self._agreed(rows, verified, torch.stack(drafts, 1), lengths)
        self.counts[rows] += np.stack([lengths, accepted, np.ones_like(lengths)], 1)
        counts, gone = self._put(texts)
        self.ledger.close_step(counts)
        kept = np.array([len(text) for text in texts])
        cache.seen = begin + int(kept.max())  # columns that no row keeps are overwritten
        for columns in set((kept.max() - kept).tolist()) - {0}:
            cache.retreat(np.flatnonzero(kept.max() - kept == columns), columns)
        self._replace(gone)

    def _drafted(self, rows: Slots) -> tuple[list[Tensor], list[Tensor], list[Tensor], Slots]:
        """Inputs and drafts, [alive] each, states after the drafting layers, and how many drafts each row has."""
        cache = self.cache
        room = np.array([self.wave.requests[row].limit - len(self.written[row]) for row in rows.tolist()])
        if self.wave.reread_after is not None:  # texts are read again before a round, not within one
            left = self.wave.reread_after - (cache.seen - cache.starts[: len(rows)])
            room = np.where(left > 0, np.minimum(room, left), room)
        if self.columns is not None:  # the longest row may have ended its draft, but is run along with the others
            room = np.minimum(room, self.columns - (cache.seen - cache.left))
        lengths = np.zeros(len(rows), dtype=np.int64)
        going = np.ones(len(rows), dtype=bool)
        inputs: list[Tensor] = [self.tokens[: len(rows)].clone()]
        drafts: list[Tensor] = []
        states: list[Tensor] = []
        known = torch.empty(0)

        def note(layer: int, hidden: Tensor) -> None:
            if layer == self.prefix:
                states.append(hidden[:, 0].clone())

        options = ForwardOptions(None if self.prefix is None else note)
        while going.any():
            self.draft.slots = None if going.all() else np.flatnonzero(going)
            past = cache.seen - cache.starts[: len(rows)]
            traffic = Traffic(going.astype(np.int64), past, 1, cache.seen - cache.left)
            idle = np.flatnonzero(~going)
            if len(idle):  # their logits are not used: any will do
                self.draft.known = [(idle, known[: len(idle)])]
            known = self.wave.forward(cache, inputs[-1][:, None], traffic, self.ledger, self.draft, options)
            self.draft.known = ()
            confidence, drafted = self._likeliest(known, rows, lengths, going)
            lengths += going
            drafts.append(drafted)
            going &= (lengths < np.minimum(self.most, room)) & self.method.goes_on(confidence).cpu().numpy()
            if going.any():
                inputs.append(drafted)
        return inputs, drafts, states, lengths

    def _likeliest(
        self, logits: Tensor, rows: Slots, lengths: Slots, going: NDArray[np.bool_]
    ) -> tuple[Tensor, Tensor]:
        """Probability of the most likely next draft, and the draft, [alive] each; `lengths` were drafted before it.

        The logits processors apply to drafts too: a draft that they forbid would never be accepted.
        """
        if self.processors is None:
            confidence, drafted = logits.float().softmax(-1).max(-1)
            return confidence, drafted
        steps = np.array([len(self.written[row]) for row in rows.tolist()], dtype=np.int64) + lengths
        confidence, drafted = self.processors(logits, rows, steps).softmax(-1).max(-1)
        slots = np.flatnonzero(going)
        self.processors.note(rows[slots], steps[slots], drafted[on(slots, drafted.device)])
        return confidence, drafted

    def _verified(self, inputs: Tensor, lengths: Slots) -> Tensor:
        """Logits of full depth after each input: [alive, inputs, vocabulary]."""
        cache, count = self.cache, inputs.shape[1]
        past = cache.seen - cache.starts[: cache.alive]
        traffic = Traffic(lengths, past, count, cache.seen - cache.left)
        logits = self.wave.forward(cache, inputs, traffic, self.ledger, self.verify, ForwardOptions(keep=count))
        return logits if logits.ndim == 3 else logits[:, None]

    def _agreed(self, rows: Slots, verified: Tensor, drafts: Tensor, lengths: Slots) -> tuple[list[list[int]], Slots]:
        """Tokens that each row writes in the round, and how many of its drafts were accepted."""
        texts: list[list[int]] = [[] for _ in rows]
        accepted = np.zeros(len(rows), dtype=np.int64)
        going = np.ones(len(rows), dtype=bool)
        proposed = drafts.tolist()
        for place in range(verified.shape[1]):
            going &= lengths > place
            if not going.any():
                break
            slots = np.flatnonzero(going)
            written = [len(texts[s]) for s in slots.tolist()]
            chosen = self._choose(verified[on(slots, verified.device), place], rows[slots], written)
            for slot, token in zip(slots.tolist(), chosen.tolist(), strict=True):
                texts[slot].append(token)
                going[slot] = token == proposed[slot][place]
                accepted[slot] += going[slot]
        return texts, accepted

    def _generation(self, row: int) -> Generation:
        generation = super()._generation(row)
        drafted, accepted, rounds = self.counts[row].tolist()
        generation.speculation = drafted, accepted, rounds
        count = len(generation.tokens)  # a round may agree on drafts behind the end of the text
        generation.near_ties = [(step, margin) for step, margin in generation.near_ties if step < count]
        return generation
