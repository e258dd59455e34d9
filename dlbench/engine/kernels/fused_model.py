"""A decode step of a whole model of fused layers, checked against the stock model.

A stock model computes positions, masks and rotary angles in every forward; for a narrow model at batch 1 that takes as
long as half of the layers. Here angles are looked up in a table made by the model's own module, and a mask is one
comparison, made only where rows start at different columns.

Shape letters: B rows, W model width, D rotary width, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlbench.engine.interfaces import FusedStep, LayerGates
from dlbench.engine.kernels.equivalence import TOLERANCE
from dlbench.engine.kernels.fused_layer import FusedLayer
from dlbench.engine.kernels.layer_specs import LAYER_SPECS
from dlbench.engine.kernels.native_layer import native_layers
from dlbench.engine.kernels.norms import norm
from dlbench.engine.kv.masks import PADDING_ONLY, hiding
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.layers.rotary_tables import RowAngles, signed
from dlbench.models.attention import depends_on_length, kind_of, rotary_of, windows
from dlbench.models.backbone import Backbone
from dlbench.models.exit_head import capped, soft_cap
from dlbench.models.families import resolve

_BY_POSITION = {"default", "linear", "llama3", "yarn"}
"""Types of rotary angles that depend on the position alone; see also `depends_on_length`."""


class NotFusedModel(Exception):
    """A model's decode step cannot be replaced; the message says why, in one line."""


@final
class FusedModel:
    """One decode step of a model: from a new token per row to its logits."""

    def __init__(self, backbone: Backbone, layers: Sequence[FusedLayer]) -> None:
        """Prepare, and check the step against the stock model.

        Args:
            backbone: of a model type in LAYER_SPECS.
            layers: its fused layers.

        Raises:
            NotFusedModel: the model computes something around its layers that this class does not.
        """
        model, family, spec = backbone.model, backbone.family, LAYER_SPECS[backbone.kind]
        if any(resolve(model, path) is not None for path in family.inputs):
            raise NotFusedModel("there is a projection between embedding and layers")
        for name, module in model.named_modules():
            if not name.startswith(family.layers) and (
                "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks
            ):
                raise NotFusedModel(f"{name or 'the model'} has hooks")
        self.backbone, self.layers = backbone, layers
        self.embed = model.get_input_embeddings()
        self.width = layers[0].out.outputs
        path, self.first = spec.positions or ("", 0)
        self.positions = resolve(model, path).weight if path else None
        self.last = backbone.context - 1
        self.rotary = rotary_of(backbone)
        unknown = {kind for kind in _rope_types(model.config) - _BY_POSITION if not depends_on_length(kind)}
        if self.rotary is not None and unknown:
            raise NotFusedModel(f"rotary angles of type {', '.join(sorted(unknown))} are not known")
        self.rows = RowAngles.of(backbone)
        spans = windows(model.config, backbone.depth)
        kinds_of = [kind_of(backbone, self.rotary, i) if self.rotary is not None else () for i in range(backbone.depth)]
        self.groups = list(zip(kinds_of, spans, strict=True))
        """Per layer, what its arguments depend on: extra arguments of the rotary module, and the window."""
        self.firsts = {group: self.groups.index(group) for group in self.groups}
        """The first layer of each group."""
        head, *self.rest = (module for path in family.head if (module := resolve(model, path)) is not None)
        self.norm, self.cap = norm(head, spec.offset), soft_cap(backbone)
        self._tables: dict[tuple[str, ...], tuple[Tensor, ...]] = {}
        self._padding_mask: tuple[Slots, Tensor] | None = None
        """Columns at which rows start, and the mask that hides those before, over a whole cache."""
        with torch.inference_mode():
            _check(self)
            self.steps: Sequence[FusedStep] = native_layers(backbone, layers) or layers
            """What runs the layers."""

    def step(self, gates: LayerGates, ids: Tensor, cache: RowCache) -> Tensor:
        """Run one new token per living row through embedding, layers and head; see `ModelStep.step`."""
        hidden, arguments = self.enter(ids, cache)
        for index, (layer, group) in enumerate(zip(self.steps, self.groups, strict=True)):
            hidden = gates.layer(index, layer, hidden, arguments[group])
        return self.leave(hidden)[:, -1]

    def enter(self, ids: Tensor, cache: RowCache) -> tuple[Tensor, Mapping[Any, dict[str, Any]]]:
        """States before the first layer, [B, 1, W], and the layers' other arguments by group."""
        starts = cache.starts[: cache.alive]
        positions = cache.seen - (starts if cache.padded else starts[:1])
        at, last = on(positions, ids.device), int(positions.max())
        hidden = self.embedded(ids, at)
        arguments: dict[Any, dict[str, Any]] = {}
        for group, index in self.firsts.items():
            mask = self._padding(cache, cache.first(index))
            kwargs: dict[str, Any] = {self.layers[0].cache: cache, "attention_mask": mask, PADDING_ONLY: True}
            if self.rotary is not None:
                table, one = self.table(group[0], last), slice(last, last + 1)
                kwargs["position_embeddings"] = tuple(
                    x[one] if len(positions) == 1 else x.index_select(0, at) for x in table
                )
                kwargs["signed"] = True
            arguments[group] = kwargs
        return hidden, arguments

    def _padding(self, cache: RowCache, first: int) -> Tensor | None:
        """The mask of columns from `first` on, hiding those before each row: [B, 1, 1, columns]; None if none are."""
        starts = cache.starts[: cache.alive]
        if not cache.padded or not (starts > first).any():
            return None
        known = self._padding_mask
        if known is None or known[1].shape[-1] != cache.length or not np.array_equal(known[0], starts):
            like, starts = self.layers[0].out.weight, starts.copy()
            there = torch.arange(cache.length, device=like.device) >= on(starts, like.device)[:, None, None, None]
            # on a CPU the attention kernel would convert booleans to this in every layer
            self._padding_mask = known = starts, hiding(there, like.dtype) if like.is_cpu else there
        return known[1][..., first : cache.seen + 1]

    def embedded(self, ids: Tensor, at: Tensor) -> Tensor:
        """States of tokens [B, 1] at these positions, [B] or one of all: [B, 1, W]."""
        hidden: Tensor = self.embed(ids)
        if self.positions is not None:
            at = at.clamp(max=self.last)  # a row that waits while others draft may stand behind the context
            hidden = hidden + F.embedding(at + self.first, self.positions)[:, None]
        return hidden

    def leave(self, hidden: Tensor) -> Tensor:
        """Logits of states that leave the last layer: [B, 1, W] -> [B, 1, V]."""
        hidden = self.norm(hidden)
        for module in self.rest:
            hidden = module(hidden)
        return capped(hidden, self.cap)

    def table(self, kind: tuple[str, ...], last: int) -> tuple[Tensor, ...]:
        """Cosines and `signed` sines by position, at least up to position `last`: [positions, 1, D]."""
        table = self._tables.get(kind)
        if table is None or len(table[0]) <= last:
            like = self.layers[0].out.weight
            cos, sin = (x[:, None] for x in self._angles(like, last, kind))
            table = self._tables[kind] = cos.contiguous(), signed(sin)
        return table

    def _angles(self, like: Tensor, last: int, kind: tuple[str, ...]) -> tuple[Tensor, ...]:
        """Cosines and sines of new tokens by position, at least up to position `last`: [positions, D]."""
        if self.rows is not None:
            return self.rows.table(like.new_zeros(1), last, kind)
        positions = torch.arange(max(256, 2 * last), device=like.device)
        return tuple(x[0] for x in self.rotary(like.new_zeros(1), positions[None], *kind))


def _rope_types(config: Any) -> set[str]:
    """Types of a model's rotary angles: one for all layers, or one per type of layer."""
    given = getattr(config, "rope_parameters", None) or {}
    several = [x for x in given.values() if isinstance(x, Mapping)] or [given]
    return {str(x.get("rope_type", "default")) for x in several}


def _check(fused: FusedModel) -> None:
    """Compare what happens around the layers with the stock model, on rows that start together and on rows that don't.

    Raises:
        NotFusedModel: something differs.
    """
    for lengths in ([9, 9], [9, 4]):
        for what, difference in _differences(fused, np.array(lengths)):
            if not difference <= 1:
                raise NotFusedModel(f"{what} off by {difference:.3g} times the tolerance")


def _differences(fused: FusedModel, lengths: Slots) -> Iterator[tuple[str, float]]:
    """Differences from the stock model over the tolerance, for rows of these lengths, and what each is of."""
    backbone, rows, columns = fused.backbone, len(lengths), int(lengths.max())
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(backbone.model.config.vocab_size, (rows, columns + 1), generator=random).to(backbone.device)
    cache = RowCache([span for _, span in fused.groups], rows, columns + 1)
    cache.seat(np.arange(rows), lengths, columns)
    entered, left, logits = _stock_step(backbone, cache, ids)
    cache.seen = columns
    hidden, arguments = fused.enter(ids[:, columns:], cache)
    yield "the state before the layers is", _off(hidden, entered[0][0])
    for index, ((_, theirs), group) in enumerate(zip(entered, fused.groups, strict=True)):
        ours, width = arguments[group], columns + 1 - cache.first(index)
        same = bool((_allowed(ours, width) == _allowed(theirs, width)).all())
        yield f"the mask of layer {index} is", 0.0 if same else float("inf")
        if fused.rotary is not None:
            cos, sin = theirs["position_embeddings"]
            for mine, stock in zip(ours["position_embeddings"], (cos, signed(sin)), strict=True):
                yield f"the angles of layer {index} are", _off(mine.expand_as(stock), stock)
    yield "the logits are", _off(fused.leave(left), logits)


def _stock_step(
    backbone: Backbone, cache: RowCache, ids: Tensor
) -> tuple[list[tuple[Tensor, dict[str, Any]]], Tensor, Tensor]:
    """Run a prompt, then one decode step, through the stock model.

    Returns:
        Of the decode step: state and arguments of each layer, the state after the last layer, and the logits.
    """
    columns = ids.shape[1] - 1
    there = torch.arange(columns + 1, device=ids.device) >= on(cache.starts[:, None], ids.device)
    positions = (there.cumsum(-1) - 1).clamp_(min=0)
    entered: list[tuple[Tensor, dict[str, Any]]] = []
    left: list[Tensor] = []
    logits = torch.empty(0)
    for part in (slice(columns), slice(columns, columns + 1)):
        entered.clear()
        with _watched(list(backbone.layers), entered, left):
            logits = backbone.model(
                input_ids=ids[:, part],
                attention_mask=there[:, : part.stop].long() if cache.padded else None,
                position_ids=positions[:, part],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
        cache.advance(part.stop - cache.seen)
    return entered, left[-1], logits


def _off(got: Tensor, stock: Tensor) -> float:
    """Largest difference in any row over the tolerance: a share of the row's largest number, plus rounding."""
    over = tuple(range(1, got.ndim))
    tolerated = (TOLERANCE[got.dtype] + 4 * torch.finfo(got.dtype).eps) * stock.abs().amax(over)
    return float(((got - stock).abs().amax(over) / (tolerated + torch.finfo(got.dtype).tiny)).max())


@contextmanager
def _watched(layers: Sequence[Any], entered: list[tuple[Tensor, dict[str, Any]]], left: list[Tensor]) -> Iterator[None]:
    """Collect what enters the stock layers, and what leaves the last one."""
    names = list(inspect.signature(layers[0].forward).parameters)

    def note(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append((args[0], {**dict(zip(names, args, strict=False)), **kwargs}))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(lambda _, __, out: left.append(out)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _allowed(kwargs: Mapping[str, Any], columns: int) -> Tensor:
    """Which of the last columns a layer's mask lets through: [B or 1, 1, 1, columns]."""
    mask: Tensor | None = kwargs.get("attention_mask")
    if mask is None:
        return torch.ones(1, 1, 1, columns, dtype=torch.bool)
    return (mask if mask.dtype is torch.bool else mask >= 0)[..., -columns:].cpu()
