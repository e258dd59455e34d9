"""Show a layer the past tokens that it must have processed before the present ones run it."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from torch import Tensor

from dlbench.engine.flops.ledger import Ledger
from dlbench.engine.interfaces import LayerStep
from dlbench.engine.kv.masks import MaskForm, past_mask
from dlbench.engine.kv.past_tokens import Owed, Past
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.layers.call_args import LayerCall
from dlbench.engine.layers.rotary_tables import Angles


@final
class PastRunner:
    """Runs past tokens, or makes their keys and values, in one forward; what runs is charged."""

    def __init__(
        self, cache: RowCache, ledger: Ledger, angles: Angles, *, by_column: frozenset[int], form: MaskForm
    ) -> None:
        """Prepare.

        Args:
            cache: holds the living rows.
            ledger: charged per row.
            angles: rotary angles of decoded tokens.
            by_column: layers in which tokens of different columns must run one after the other.
            form: of the layers' masks.
        """
        self.cache, self.ledger, self.angles = cache, ledger, angles
        self.by_column, self.form = by_column, form
        self.starts: Slots = cache.starts[: cache.alive]

    def note_angles(self, index: int, step: LayerStep, kwargs: dict[str, Any]) -> None:
        """Keep the rotary angles that a layer is given for the present tokens, at the first layer of each kind."""
        if index in self.angles.firsts and not step.own_angles:
            self.angles.note(index, kwargs, self.cache.seen - self.starts)

    def catch_up(self, call: LayerCall, policy: KVPolicy, attending: list[Slots | None]) -> Owed | None:
        """Process the past tokens that are due before these groups of rows run the layer's attention.

        Returns:
            Tokens that the layer takes along in its own products; they are charged here, like the others.
        """
        one = len(attending) == 1
        past = policy.due(call.index, attending[0] if one else np.sort(np.concatenate(attending)))  # type: ignore[arg-type]
        if past is None:
            return None
        if not policy.reruns:
            self.ledger.fill(call.index, past.slots)
            positions, kwargs = self._arguments(call, past)
            if one and call.step.merges:
                return Owed(past.states, kwargs.get("position_embeddings"), past.places)
            call.step.fill_past(past, positions, kwargs)
        elif call.index in self.by_column:
            for part in past.by_column():  # later columns need what earlier ones leave
                self._rerun(call, policy, part, int(part.columns[0]) + 1)
        else:
            self._rerun(call, policy, past, self.cache.seen + 1)
        return None

    def _rerun(self, call: LayerCall, policy: KVPolicy, past: Past, end: int) -> None:
        """Run past tokens through the layer, over the columns before `end`, each with the mask it had when new."""
        positions, kwargs = self._arguments(call, past)
        if self.ledger.costs.attends[call.index]:
            kwargs["attention_mask"] = past_mask(
                call.kwargs.get("attention_mask"),
                past,
                on(self.starts[past.slots], call.hidden.device),
                self.cache.windows[call.index],
                range(self.cache.left, end),
                len(call.hidden),
                form=self.form,
            )
        with self.cache.past(past.rows, past.at, end):
            out = call.step(past.states[:, None], **kwargs)
        state: Tensor = out[0] if isinstance(out, tuple) else out
        policy.processed(call.index, past, state[:, 0])
        self.ledger.past_layer(call.index, past.slots, positions + 1, end - self.cache.left)

    def _arguments(self, call: LayerCall, past: Past) -> tuple[Slots, dict[str, Any]]:
        """Positions of past tokens, and the layer's arguments for them."""
        positions = past.columns - self.starts[past.slots]
        given = call.kwargs.get("position_embeddings") is not None
        angles = self.angles.of(call.index, positions, run=past.run) if given else None
        return positions, call.for_past(past, positions, angles)
