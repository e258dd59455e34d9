"""What a stock layer is called with, for some of the rows or for tokens of the past."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlbench.engine.kv.policies import Past, add_to_mask
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.layers.rotary_tables import copied, module_of, types_of, varies
from dlbench.models.backbone import Backbone


def take(x: Any, rows: Tensor, batch: int) -> Any:
    """The given rows of a layer's argument: a first dimension of 1 broadcasts, tuples and dicts recurse.

    A first dimension of rows × heads (Bloom's alibi) is unfolded.
    """
    if isinstance(x, Tensor):
        if not x.ndim or x.shape[0] == 1 < batch:
            return x
        if x.shape[0] == batch:
            return x[rows]
        if x.ndim > 2 and x.shape[0] % batch == 0:
            return x.view(batch, -1, *x.shape[1:])[rows].flatten(0, 1)
        return x
    if isinstance(x, (tuple, list)):
        return type(x)(take(y, rows, batch) for y in x)
    if isinstance(x, dict):
        return {k: take(y, rows, batch) for k, y in x.items()}
    return x


def rotary_of(backbone: Backbone) -> Any:
    """The module that makes a model's rotary angles, or a copy where it keeps what it meets; None where it has none."""
    module = module_of(backbone)
    return copied(module) if any(map(varies, types_of(module).values())) else module


def kind_of(backbone: Backbone, rotary: Any, index: int) -> tuple[str, ...]:
    """What that module must be told of a layer beside the positions: its kind, where angles differ by kind."""
    differs = "layer_type" in inspect.signature(rotary.forward).parameters
    return (backbone.model.config.layer_types[index],) if differs else ()


class Angles:
    """Rotary angles of decoded tokens by true position, as they were when new; layers of one kind share theirs.

    They are the same in all rows, also where they depend on the length of the text: that is the position and one.
    """

    def __init__(self, kinds: Sequence[str], length: int) -> None:
        self._kinds, self._length = kinds, length
        self._tables: dict[str, tuple[Tensor, ...]] = {}
        self.firsts = frozenset(kinds.index(kind) for kind in kinds)
        """The first layer of each kind, at which a forward's angles are to be noted."""

    def note(self, layer: int, kwargs: dict[str, Any], where: Slots) -> None:
        """Keep what a layer is handed for the tokens at these true positions, [rows]."""
        kind, angles = self._kinds[layer], kwargs.get("position_embeddings")
        if angles is None:
            return
        if kind not in self._tables:
            self._tables[kind] = tuple(a.new_zeros(self._length, a.shape[-1]) for a in angles)
        chosen = int(where[0]) if len(where) == 1 else on(where, angles[0].device)
        for table, a in zip(self._tables[kind], angles, strict=True):
            table[chosen] = a[:, 0] if a.shape[0] == len(where) else a[:, 0].expand(len(where), -1)

    def of(self, layer: int, where: Slots, *, run: bool) -> tuple[Tensor, ...]:
        """Angles of single tokens at these true positions, which may be a run of neighbours: each [M, 1, D]."""
        tables = self._tables[self._kinds[layer]]
        chosen = slice(int(where[0]), int(where[-1]) + 1) if run else on(where, tables[0].device)
        return tuple(table[chosen][:, None] for table in tables)


def of_past(
    kwargs: dict[str, Any], past: Past, where: Slots, angles: tuple[Tensor, ...] | None, batch: int
) -> dict[str, Any]:
    """A layer's arguments for past tokens, one batch entry each.

    Args:
        kwargs: its arguments for the tokens under way.
        past: M tokens.
        where: their true positions, [M].
        angles: their rotary angles.
        batch: rows under way.
    """
    new = dict(kwargs)
    if new.get("position_ids") is not None:
        new["position_ids"] = on(where, past.states.device)[:, None]
    if angles is not None:
        new["position_embeddings"] = angles
    new["attention_mask"] = None
    if new.get("alibi") is not None:
        new["alibi"] = take(new["alibi"], past.rows, batch)
    return new


def past_mask(
    mask: Any, past: Past, start: Tensor, window: int | None, seen: range, batch: int, *, additive: bool
) -> Tensor:
    """The mask of past tokens over some columns: what each saw when it was new, [M, 1, 1, len(seen)].

    A mask of the tokens under way is kept below it where the layer has no window: it may hold a bias (alibi).

    Args:
        mask: of the tokens under way, from the first of the columns on.
        past: M tokens.
        start: first true column of each one's row, [M].
        window: how many positions a token attends to; None for all.
        seen: the columns.
        batch: rows under way.
        additive: whether masks are added to scores.
    """
    columns = torch.arange(seen.start, seen.stop, device=past.at.device)
    there = (columns >= start[:, None]) & (columns <= past.at[:, None])
    if window is not None:
        there &= columns > past.at[:, None] - window
    base = take(mask, past.rows, batch)[..., : len(seen)] if window is None and mask is not None else None
    return add_to_mask(base, there, additive=additive, dtype=past.states.dtype)
