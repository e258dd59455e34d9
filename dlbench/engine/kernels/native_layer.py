"""A fused layer's decode step by one function in C, for the layers that Llama and its kin have.

A fused layer still takes some twenty calls, and rows that skip it must be gathered and put back. `decode_layer.c` runs
the whole layer in one call, for the rows that run it, over the keys of each row alone. Whatever it cannot do is left to
the fused layer: sub-layers, several new tokens, masks that hide more than what lies before a row, counters of FLOPs.

Shape letters: B rows, W model width, H query heads, G key/value heads, D head width, R rotary width, M past tokens.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack
from transformers.activations import SiLUActivation

from dlbench.engine.flops.extra import Extra
from dlbench.engine.interfaces import RunSome
from dlbench.engine.kernels import linear, native
from dlbench.engine.kernels.equivalence import TOLERANCE
from dlbench.engine.kernels.fused_layer import FusedLayer
from dlbench.engine.kernels.layer_specs import LAYER_SPECS
from dlbench.engine.kernels.norms import epsilon
from dlbench.engine.kv.masks import PADDING_ONLY
from dlbench.engine.kv.past_tokens import Owed, Past
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Places, Slots
from dlbench.engine.layers.rotary_tables import signed
from dlbench.method import Action
from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve

_RUN = int(Action.RUN)
_WHOLE = 16
"""Widths must be multiples of this: as many numbers as the widest registers hold."""
_LONG, _POINTER, _FLOAT = ctypes.c_long, ctypes.c_void_p, ctypes.c_float


class _Layer(ctypes.Structure):
    """`struct layer`."""

    _fields_ = (
        *((name, _LONG) for name in ("width", "heads", "groups", "head", "rotated", "inner")),
        *((name, _FLOAT) for name in ("scale", "eps", "eps_mlp")),
        *((name, _POINTER) for name in ("norm", "norm_mlp", "qkv", "qkv_bias", "out", "out_bias")),
        *((name, _POINTER) for name in ("up", "up_bias", "down", "down_bias")),
    )


class _Step(ctypes.Structure):
    """`struct step`."""

    _fields_ = (
        *((name, _POINTER) for name in ("state", "result")),
        *((name, _LONG) for name in ("alive", "runs", "made", "past")),
        *((name, _POINTER) for name in ("order", "slots", "columns", "starts", "past_state")),
        *((name, _POINTER) for name in ("cos", "sin", "past_cos", "past_sin")),
        ("angles", _LONG),
        ("cache", _POINTER),
        *((name, _LONG) for name in ("length", "first", "now")),
        ("scratch", _POINTER),
        ("threads", ctypes.c_int),
    )


@final
class NativeLayer:
    """Runs a fused layer; see `dlbench.engine.interfaces.FusedStep`."""

    own_angles = False
    run_rows = None

    def __init__(self, fused: FusedLayer, functions: ctypes.CDLL, norms: Sequence[Any], offset: float) -> None:
        """Prepare.

        Args:
            fused: the layer; `takes` it.
            functions: the library.
            norms: its root-mean-square norms before attention and feed-forward.
            offset: added to their weights.
        """
        self.fused, self.several, self.index, self.cache = fused, fused.several, fused.index, fused.cache
        self.run_some: RunSome = self._run_some
        self._step, self._scratch_size = functions.layer_step, functions.layer_scratch
        self._step.restype, self._scratch_size.restype = None, _LONG
        self._norms = [(norm.weight.detach() + offset).contiguous() for norm in norms]
        self._rotated = 0
        self._layer = _Layer(
            fused.out.outputs,
            fused.heads,
            fused.kv_heads,
            fused.head_width,
            0,
            fused.down.inputs,
            fused.scale,
            *map(epsilon, norms),
            *(norm.data_ptr() for norm in self._norms),
            *(
                None if x is None else x.data_ptr()
                for product in (fused.qkv, fused.out, fused.up, fused.down)
                for x in (product.weight, product.bias)
            ),
        )

    @property
    def merges(self) -> bool:
        """Whether keys and values of past tokens can come from the same product as those of new ones."""
        return self.fused.merges

    def __call__(self, hidden: Tensor, *, part: int = _RUN, owed: Owed | None = None, **kwargs: Any) -> Tensor:
        """Run the layer for all rows that the cache has selected, or a sub-layer of it; see `FusedLayer`."""
        cache: Any = kwargs.get(self.cache)
        if part != _RUN or not self._able(hidden, len(hidden), cache, kwargs):
            return self.fused(hidden, part=part, owed=owed, **kwargs)
        rows, order = cache.selected, np.arange(len(hidden))
        slots = order if rows is None else rows.numpy()
        result = hidden.new_empty(hidden.shape)
        self._run(hidden, result, order, slots, len(hidden), cache, owed, kwargs)
        return result

    def _run_some(
        self, hidden: Tensor, slots: Slots, owed: Owed | None, kwargs: dict[str, Any], kept: bool
    ) -> tuple[Tensor, Extra]:
        """Run the layer for some rows, and make keys and values of all if they are `kept`; see `RunSome`."""
        cache: Any = kwargs.get(self.cache)
        if not self._able(hidden, len(slots), cache, kwargs):
            assert self.fused.run_some is not None
            return self.fused.run_some(hidden, slots, owed, kwargs, kept)
        order: Slots = slots
        if kept:
            absent = np.ones(len(hidden), dtype=bool)
            absent[slots] = False
            order = np.concatenate((slots, np.flatnonzero(absent)))
        result = hidden.clone(memory_format=torch.contiguous_format)
        self._run(hidden, result, order, order, len(slots), cache, owed, kwargs)
        kv = self.fused.qkv.weight[self.fused.heads * self.fused.head_width :]
        return result, Extra(2 * kv.numel() if kept else 0, attended=False)

    def fill_past(self, past: Past, positions: Slots, kwargs: dict[str, Any]) -> None:
        self.fused.fill_past(past, positions, kwargs)

    def _able(self, hidden: Tensor, runs: int, cache: Any, kwargs: dict[str, Any]) -> bool:
        """Whether the function in C can do it, and does it faster."""
        return (
            hidden.shape[1] == 1
            and 0 < runs <= linear.NATIVE_ROWS
            and (kwargs.get(PADDING_ONLY) is True or kwargs.get("attention_mask") is None)
            and isinstance(cache, RowCache)
            and not cache.takes_past
            and not hidden.requires_grad
            and not _len_torch_dispatch_stack()  # such as a counter, which would not see it
        )

    def _run(
        self,
        hidden: Tensor,
        result: Tensor,
        order: NDArray[np.int64],
        slots: Slots,
        runs: int,
        cache: RowCache,
        owed: Owed | None,
        kwargs: dict[str, Any],
    ) -> None:
        """Compute the rows `order[:runs]` of `result`, and make keys and values of all rows of `order`.

        Args:
            hidden: states that enter, [B, 1, W].
            result: states that leave, [B, 1, W].
            order: rows of `hidden`, those that run the layer first.
            slots: of these in the cache.
            runs: how many run it.
            cache: takes keys and values, and has those of the rows' earlier tokens.
            owed: past tokens whose keys and values are made too.
            kwargs: the stock layer's other arguments.
        """
        layer, width = self._layer, self.fused.head_width
        hidden = hidden.contiguous()
        memory = cache.memory.of(self.index, 2 * self.fused.kv_heads, hidden.new_empty(0, width))
        angles = _angles(kwargs.get("position_embeddings"), signs=bool(kwargs.get("signed")))
        past_angles = _angles(None if owed is None else owed.angles, signs=True)
        layer.rotated = angles[0].shape[-1] if angles and self.fused.rotary else 0
        past_slots, columns = _places(None if owed is None else owed.places)
        if len(past_slots):
            slots = np.concatenate((slots, past_slots))
        slots, order, starts = (np.ascontiguousarray(x, dtype=np.int64) for x in (slots, order, cache.starts))
        past_states = None if owed is None else owed.states.contiguous()
        step = _Step(
            hidden.data_ptr(),
            result.data_ptr(),
            len(hidden),
            runs,
            len(order),
            len(past_slots),
            order.ctypes.data,
            slots.ctypes.data,
            columns.ctypes.data,
            starts.ctypes.data,
            None if past_states is None else past_states.data_ptr(),
            *(x.data_ptr() for x in angles or (hidden, hidden)),
            *(x.data_ptr() for x in past_angles or (hidden, hidden)),
            angles[0].stride(0) if angles and len(angles[0]) > 1 else 0,
            memory.data_ptr(),
            cache.length,
            cache.first(self.index),
            cache.seen,
            None,
            torch.get_num_threads(),
        )
        layer_at, step_at = ctypes.byref(layer), ctypes.byref(step)
        step.scratch = _scratch(self._scratch_size(layer_at, step_at)).data_ptr()
        self._step(layer_at, step_at)


_SCRATCH: list[Tensor] = []


def _scratch(size: int) -> Tensor:
    """Memory that all layers share: allocating costs more than a narrow layer."""
    if not _SCRATCH or _SCRATCH[0].numel() < size:
        _SCRATCH[:] = [torch.empty(size)]
    return _SCRATCH[0]


def _angles(angles: tuple[Tensor, ...] | None, *, signs: bool) -> tuple[Tensor, ...]:
    """Cosines and signed sines, each [B or 1, 1, R], contiguous; empty without angles."""
    if angles is None:
        return ()
    cos, sin = angles
    return cos.contiguous(), (sin if signs else signed(sin)).contiguous()


def _places(places: Places | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Slots and columns of past tokens, one of each per token."""
    if places is None:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    rows, columns = places
    if isinstance(columns, slice):
        assert isinstance(rows, int)
        at = np.arange(columns.start, columns.stop)
        return np.full(len(at), rows), at
    assert isinstance(rows, Tensor)
    slots = rows.numpy()
    return slots, columns.numpy() if isinstance(columns, Tensor) else np.full(len(slots), columns)


def native_layers(backbone: Backbone, layers: Sequence[FusedLayer]) -> list[NativeLayer] | None:
    """The layers of a model, each compared with its fused layer; None where the function in C is not for them."""
    spec, functions = LAYER_SPECS[backbone.kind], native.library()
    if functions is None or linear.KIND != "avx2" or not all(map(_takes, layers)):
        return None
    made = []
    for fused, layer in zip(layers, backbone.layers, strict=True):
        norms = [resolve(layer, name) for name in (spec.norms[0], spec.norms[2]) if name is not None]
        if len(norms) != 2 or any(isinstance(n, nn.LayerNorm) or n.weight.dtype is not torch.float32 for n in norms):
            return None
        made.append(NativeLayer(fused, functions, norms, spec.offset))
    return made if all(map(_agrees, made)) else None


def _takes(layer: FusedLayer) -> bool:
    """Whether the function in C computes what this layer does."""
    widths = (layer.out.outputs, layer.head_width, layer.down.inputs)
    products = (layer.qkv, layer.out, layer.up, layer.down)
    return (
        all(product.special and not product.transposed for product in products)
        and not any(width % _WHOLE for width in widths)
        and layer.gated
        and not layer.parallel
        and not layer.interleaved
        and layer.leave is None
        and layer.leave_mlp is None
        and layer.norm_qk is None
        and isinstance(layer.activation, (SiLUActivation, nn.SiLU))
    )


def _agrees(layer: NativeLayer) -> bool:
    """Whether random rows of unequal length leave the layer as they leave the fused one: all of them, and some."""
    fused, columns, random = layer.fused, 5, torch.Generator().manual_seed(layer.index)
    heads, width = 2 * fused.kv_heads, fused.head_width
    state = torch.randn(3, 1, fused.out.outputs, generator=random)
    before = torch.randn(3, heads, columns, width, generator=random)
    mask = torch.zeros(3, 1, 1, columns + 1)
    mask[1, ..., :2] = torch.finfo(mask.dtype).min
    kwargs: dict[str, Any] = {"attention_mask": mask, PADDING_ONLY: True, "signed": True}
    kwargs["position_embeddings"] = torch.randn(2, 3, 1, width, generator=random).unbind()

    def results(step: FusedLayer | NativeLayer) -> Iterator[Tensor]:
        for some in (None, np.array([0, 2])):
            cache = RowCache([None] * (layer.index + 1), 3, columns + 1)
            cache.seat(np.arange(3), np.array([columns, columns - 2, columns]), columns)
            memory = cache.memory.of(layer.index, heads, state.new_empty(0, width))
            memory[:, :, :columns], cache.seen = before, columns
            given = {**kwargs, layer.cache: cache}
            if some is None:
                yield step(state, **given)
            elif step.run_some is not None:
                yield step.run_some(state, some, None, given, True)[0]
            yield memory

    pairs = zip(results(fused), results(layer), strict=True)
    return all(
        float((ours - theirs).abs().max()) <= TOLERANCE[torch.float32] * float(theirs.abs().max())
        for theirs, ours in pairs
    )
