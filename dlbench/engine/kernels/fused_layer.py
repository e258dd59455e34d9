"""Fused decoder layers: a stock layer's `forward` in fewer calls.

A decode step of a small batch is bound by the number of calls, not by arithmetic. A fused layer replaces one stock
layer, for one new token per row and, on a CPU, for several: queries, keys and values come from one product, gate and up
from another, norms and rotary angles take few calls. Weights are not copied: projections that run together become
adjacent in memory and the stock parameters views of that memory, so the stock layer still works.

A model type is one row of LAYER_SPECS. What a row cannot say, `fuse` checks: it compares each fused layer with the
stock layer, and uses none that differs.

Shape letters: B rows, S new tokens of each, M past tokens, W model width, H query heads, G key/value heads, D head
width, T positions.
"""

from __future__ import annotations

from functools import partial
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.activations import GELUTanh, NewGELUActivation, SiLUActivation
from transformers.pytorch_utils import Conv1D

from dlbench.engine.flops.extra import Extra
from dlbench.engine.kernels.layer_specs import LayerSpec
from dlbench.engine.kernels.linear import Product, join
from dlbench.engine.kernels.norms import Map, epsilon, norm, root_norm
from dlbench.engine.kv.past_tokens import Owed, Past
from dlbench.engine.kv.storage import Places, Slots, halves, on
from dlbench.engine.layers.rotary_tables import signed
from dlbench.engine.layers.stock_layer import cache_name
from dlbench.method import Action
from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve

_RUN, _ATTN, _MLP = int(Action.RUN), int(Action.ATTN), int(Action.MLP)
_GATHERED = 300_000
"""Weights that one row is multiplied by in the time that it takes to gather rows and put them back, times the rows."""
Rotary = tuple[Tensor, ...] | None
"""Cosines and sines of rotary angles, as a stock layer takes them; None for models without rotary angles."""
_ACTIVATIONS: dict[type, Map] = {
    SiLUActivation: F.silu,
    nn.SiLU: F.silu,
    nn.ReLU: torch.relu,
    GELUTanh: partial(F.gelu, approximate="tanh"),
    NewGELUActivation: partial(F.gelu, approximate="tanh"),  # transformers spells the same formula out
}


@final
class FusedLayer:
    """Computes what a stock layer computes for the new tokens of each row: [B, S, W] -> [B, S, W].

    It shares the stock layer's weights as they are when it is made; norms are copied.
    """

    own_angles = False
    run_rows = None

    def __init__(self, layer: Any, spec: LayerSpec, backbone: Backbone) -> None:
        config = backbone.model.config
        attention = resolve(layer, backbone.family.attention)
        self.index, self.scale = int(attention.layer_idx), float(attention.scaling)
        self.parallel = spec.parallel is not None and bool(getattr(config, spec.parallel))
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(getattr(config, "num_key_value_heads", None) or self.heads)
        self.rotary = bool(getattr(attention, "use_rope", True))
        self.cache = cache_name(layer)
        norms = (None if name is None else norm(resolve(layer, name), spec.offset) for name in spec.norms)
        self.enter, self.leave, self.enter_mlp, self.leave_mlp = norms

        self.qkv = _product(layer, spec.qkv)
        self.interleaved = spec.interleaved
        self.head_width = self.qkv.outputs // (self.heads + 2 * self.kv_heads)
        first = self.heads * self.head_width
        self.q = self.kv = None
        if not self.interleaved:
            self.q, self.kv = self.qkv.part(slice(first)), self.qkv.part(slice(first, None))
        self.out, self.up, self.down = (_product(layer, x) for x in ((spec.out,), spec.up, (spec.down,)))
        self.several = self.out.weight.is_cpu  # not measured on other devices
        """Whether it may also run where rows have several new tokens."""
        self.run_some = self._run_some if self.several else None
        self._tail = sum(p.weight.numel() for p in (self.out, self.up, self.down))
        """Weights behind the attention."""
        self.folds = not self.out.weight.is_cpu
        """Whether query heads that share keys become queries of one head: CUDA kernels take no groups with a mask."""
        self.gated = spec.gated
        act = resolve(layer, spec.act)
        self.activation = act
        self.act: Map = _ACTIVATIONS.get(type(act), act)
        self.norm_qk = self.norm_k = None
        if spec.head_norms is not None:
            q, k = (resolve(layer, name) for name in spec.head_norms)
            self.norm_qk, self.norm_k = self._head_norms(q, k, spec.offset)

    @property
    def merges(self) -> bool:
        """Whether keys and values of past tokens can come from the same product as those of new ones."""
        return self.kv is not None

    def __call__(self, hidden: Tensor, *, part: int = _RUN, owed: Owed | None = None, **kwargs: Any) -> Tensor:
        """Run the layer, or a sub-layer of it: [B, S, W] -> [B, S, W].

        Args:
            hidden: states of each row's new tokens; one token per row if others are owed.
            part: an Action: RUN; ATTN adds the attention only, MLP the feed-forward only.
            owed: past tokens whose K and V are made and stored first, if the layer `merges`; its weights are then
                read once for both.
            **kwargs: the stock layer's other arguments; and `signed`, if the sines went through `signed` already.
        """
        before = out = hidden.flatten(0, 1)
        if part & _ATTN:
            out = self._attend(before, kwargs, owed, hidden.shape[1])
        if part & _MLP:
            out = self._feed_forward(before if self.parallel else out, out)
        return out.view_as(hidden)

    def _run_some(
        self, hidden: Tensor, slots: Slots, owed: Owed | None, kwargs: dict[str, Any], kept: bool
    ) -> tuple[Tensor, Extra]:
        """Run the layer for some rows, and make keys and values of all, `kept` or not; see `RunSome`."""
        state, rows = hidden[:, 0], on(slots, hidden.device)
        alive, spared = len(state), len(state) - len(slots)
        masked = spared * self._tail < _GATHERED * alive
        heads, angles = self._project(state, kwargs.get("position_embeddings"), owed, 1)
        of = None if masked else rows
        q, past = self._store(heads, angles, kwargs, self.heads, None if owed is None else owed.places, of=of)
        whole = len(past[0][1]) == alive
        x = self._attention(
            q[:alive] if whole else q[rows], past, kwargs.get("attention_mask"), None if whole else rows
        )
        before = state if masked else state[rows]
        out = self._leave_attention(x if masked or not whole else x[rows], before)
        out = self._feed_forward(before if self.parallel else out, out)
        extra = 2 * (self.qkv.weight.numel() + (self._tail if masked else 0))
        if masked:
            runs = np.zeros((alive, 1), dtype=bool)
            runs[slots] = True
            return torch.where(on(runs, state.device), out, state)[:, None], Extra(extra, whole)
        return state.index_copy(0, rows, out)[:, None], Extra(extra, whole)

    def fill(self, hidden: Tensor, **kwargs: Any) -> None:
        """Write K and V of states [M, 1, W] to the cache, and nothing else; exceptions of the cache propagate."""
        state = hidden[:, 0]
        x = state if self.enter is None else self.enter(state)
        angles = kwargs.get("position_embeddings")
        if self.kv is None:
            self._store(self._split(self.qkv(x)), angles, kwargs, self.heads)
        else:
            self._store(self._split(self.kv(x)), angles, kwargs)

    def fill_past(self, past: Past, positions: Slots, kwargs: dict[str, Any]) -> None:
        """Make keys and values of past tokens; the cache ends the layer once they are stored."""
        with kwargs[self.cache].past(past.rows, past.at):
            self.fill(past.states[:, None], **kwargs)

    def _attend(self, state: Tensor, kwargs: dict[str, Any], owed: Owed | None, tokens: int) -> Tensor:
        """The states plus what attention adds to them: [B S, W]."""
        rows, mask = state.shape[0], kwargs.get("attention_mask")
        heads, angles = self._project(state, kwargs.get("position_embeddings"), owed, tokens)
        q, past = self._store(heads, angles, kwargs, self.heads, None if owed is None else owed.places, tokens)
        if owed is not None:
            q = q[:rows]
        return self._leave_attention(self._attention(q, past, mask, None, tokens), state)

    def _attention(
        self,
        q: Tensor,
        past: list[tuple[slice, Tensor, Tensor]],
        mask: Tensor | None,
        of: Tensor | None,
        tokens: int = 1,
    ) -> Tensor:
        """What queries [B S, H, D] find in the keys and values that they may attend to: [B S, H D].

        Args:
            q: queries.
            past: what `_store` returned.
            mask: of all living rows, or one for all.
            of: the rows that the queries are of; None for all living ones.
            tokens: S.
        """
        if of is not None and mask is not None and mask.shape[0] != 1:
            mask = mask[of]
        rows, grouped, one = len(q), self.heads != self.kv_heads, tokens == 1
        fold = grouped and self.folds and mask is not None and one
        if fold:
            q = q.view(rows, self.kv_heads, -1, self.head_width)
        else:
            q = q.unsqueeze(2) if one else q.view(-1, tokens, *q.shape[1:]).transpose(1, 2)
        parts = [
            F.scaled_dot_product_attention(
                q[entries],
                keys,
                values,
                attn_mask=_of(mask, entries),
                is_causal=not one and mask is None,  # as stock models use it
                scale=self.scale,
                enable_gqa=grouped and not fold,
            )
            for entries, keys, values in past
        ]
        x = parts[0] if len(parts) == 1 else torch.cat(parts)
        return x.flatten(1) if one else x.transpose(1, 2).reshape(rows, -1)

    def _leave_attention(self, x: Tensor, state: Tensor) -> Tensor:
        """A state plus what its attention [B, H D] adds to it: [B, W]."""
        return self.out(x, state) if self.leave is None else state + self.leave(self.out(x))

    def _feed_forward(self, state: Tensor, onto: Tensor) -> Tensor:
        """`onto` plus the feed-forward of a state: [B, W]."""
        x = self.up(state if self.enter_mlp is None else self.enter_mlp(state))
        if self.gated:
            gate, up = halves(x)
            x = self.act(gate).mul_(up)
        else:
            x = self.act(x)
        return self.down(x, onto) if self.leave_mlp is None else onto + self.leave_mlp(self.down(x))

    def _project(self, state: Tensor, angles: Rotary, owed: Owed | None, tokens: int) -> tuple[Tensor, Rotary]:
        """Heads of new tokens, then of past ones with empty queries, [B S + M, H + 2 G, D]; and their angles."""
        if owed is None:
            if angles is not None and tokens > 1:
                rows = len(state) // tokens
                angles = tuple(x.expand(rows, -1, -1).reshape(rows * tokens, 1, -1) for x in angles)
            return self._split(self.qkv(state if self.enter is None else self.enter(state))), angles
        assert self.q is not None and self.kv is not None
        rows = len(state)
        x = torch.cat((state, owed.states))
        x = x if self.enter is None else self.enter(x)
        heads = x.new_zeros(len(x), self.heads + 2 * self.kv_heads, self.head_width)
        heads[:rows, : self.heads] = self._split(self.q(x[:rows]))
        heads[:, self.heads :] = self._split(self.kv(x))
        if angles is not None and owed.angles is not None:
            pairs = zip(angles, owed.angles, strict=True)
            angles = tuple(torch.cat((new.expand(rows, -1, -1), old)) for new, old in pairs)
        return heads, angles

    def _split(self, x: Tensor) -> Tensor:
        """Split a projection into heads, such as [B, (H + 2 G) D] -> [B, H + 2 G, D]: queries, keys, values."""
        if self.interleaved:
            x = x.view(len(x), self.heads, 3, self.head_width).transpose(1, 2)
        return x.reshape(x.shape[0], -1, self.head_width)

    def _store(
        self,
        x: Tensor,
        angles: Rotary,
        kwargs: dict[str, Any],
        queries: int = 0,
        past: Places | None = None,
        tokens: int = 1,
        of: Tensor | None = None,
    ) -> tuple[Tensor, list[tuple[slice, Tensor, Tensor]]]:
        """Normalise and rotate the heads x, of which the first are queries, and write the rest to the cache.

        Args:
            x: heads of new tokens, then of past ones.
            angles: their rotary angles.
            kwargs: the stock layer's other arguments.
            queries: how many heads are queries.
            past: where keys and values of the past tokens are stored.
            tokens: new tokens per row.
            of: rows that attend; None for all that are written.

        Returns:
            Queries [B S + M, H, D], and the result of `RowCache.append`: rows with the K and V that they attend to.
        """
        x = x.contiguous()  # the result of a swapped product is not, and everything that follows would be slower
        qk = x.narrow(1, 0, queries + self.kv_heads)
        if (norm := self.norm_qk if queries else self.norm_k) is not None:
            qk.copy_(norm(qk))
        if self.rotary and angles is not None:
            cos, sin = angles
            rotate(qk, cos, sin if kwargs.get("signed") else signed(sin))
        cache, (q, new) = kwargs[self.cache], x.split_with_sizes((queries, 2 * self.kv_heads), 1)
        append = getattr(cache, "append", None)
        if append is not None and tokens == 1:
            return q, append(new, self.index, past) if of is None else append(new, self.index, past, of)
        keys, values = halves(new.view(-1, tokens, *new.shape[1:]).transpose(1, 2))
        return q, [(slice(None), *cache.update(keys, values, self.index))]

    def _head_norms(self, q: Any, k: Any, offset: float) -> tuple[Map, Map]:
        """Norms of queries and keys together, [B, H + G, D], and of keys alone, [B, G, D]."""
        if q.weight.shape[0] == self.head_width:
            rows = [q.weight] * self.heads + [k.weight] * self.kv_heads
            eps = epsilon(q)
            return root_norm(torch.stack(rows), eps, offset), root_norm(k.weight, eps, offset)
        wide_q, wide_k = norm(q, offset), norm(k, offset)

        def both(x: Tensor) -> Tensor:
            parts = wide_q(x[:, : self.heads].flatten(1)), wide_k(x[:, self.heads :].flatten(1))
            return torch.cat(parts, -1).view(x.shape)

        return both, lambda x: wide_k(x.flatten(1)).view(x.shape)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate heads [B, N, D] in place by angles [B or 1, 1, R] with `signed` sines; what lies beyond R stays."""
    width = cos.shape[-1]
    into = x if width == x.shape[-1] else x[..., :width]
    part = into if into.dtype is sin.dtype else into.to(sin.dtype)
    rotated = part.roll(width // 2, -1).mul_(sin)
    if part is into:
        torch.addcmul(rotated, part, cos, out=into)
    else:
        into.copy_(rotated.addcmul_(part, cos))


def _of(mask: Tensor | None, entries: slice) -> Tensor | None:
    """The part of a mask for some rows of the batch."""
    return mask if mask is None or mask.shape[0] == 1 else mask[entries]


def _product(layer: Any, names: tuple[str, ...]) -> Product:
    """The product of one projection, or of several that take the same input."""
    modules = [resolve(layer, name) for name in names]
    if type(modules[0]) is Conv1D:
        return Product(modules[0].weight.t(), modules[0].bias)
    biases = [m.bias for m in modules]
    return Product(join([m.weight for m in modules]), None if biases[0] is None else join(biases))
