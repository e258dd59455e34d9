"""Gates around the layers of a model: rows that skip a layer are not computed in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any, final

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from dlbench.engine.flops.ledger import Ledger
from dlbench.engine.flops.op_counter import counted
from dlbench.engine.interfaces import FusedStep, Groups, LayerStep, Plan
from dlbench.engine.kv.masks import PADDING_ONLY, MaskForm, add_to_mask, hiding, take
from dlbench.engine.kv.past_tokens import Owed
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.layers.call_args import LayerCall
from dlbench.engine.layers.past_runner import PastRunner
from dlbench.engine.layers.rotary_tables import Angles, RowAngles, signed
from dlbench.engine.layers.shadowing import Forward, Shadows
from dlbench.engine.layers.stock_layer import StockLayer
from dlbench.engine.layers.sublayers import Sublayers
from dlbench.method import Action
from dlbench.models.attention import rotary_module
from dlbench.models.backbone import Backbone
from dlbench.models.families import attention_of, recurrent_of, resolve

_ATTN, _RUN = int(Action.ATTN), int(Action.RUN)  # integers: an operator of the enumeration itself takes a microsecond
_SOME = 4
"""Keys and values of all rows are made together where at least one row in so many runs the layer."""
Watch = Callable[[int, Tensor], None]
"""Called with each layer and the states that would enter it, [alive, positions, W]."""


def _gated(layer: nn.Module) -> bool:
    """Whether some gates stand before a layer."""
    forward = vars(layer).get("forward")
    return isinstance(forward, partial) and getattr(forward.func, "__func__", None) is Gates._layer


@final
class Gates:
    """Ask a plan which rows run which layers of a forward, run them, and charge for it."""

    def __init__(
        self,
        backbone: Backbone,
        fused: Sequence[FusedStep] | None,
        faster: Callable[[nn.Module], Forward | None] = lambda module: None,
    ) -> None:
        """Prepare; no module is changed yet.

        Args:
            backbone: its model.
            fused: one step per layer; None runs the stock layers.
            faster: gives another forward with equal results for a module, or None.
        """
        self.backbone, self.fused, self._faster = backbone, fused, faster
        self._replaced = [m for m in backbone.model.modules() if faster(m) is not None]
        self.names = list(inspect.signature(backbone.layers[0].forward).parameters)[1:]  # after the hidden state
        self.depth = backbone.depth
        additive = backbone.model.config._attn_implementation != "sdpa"
        self.mask_form: MaskForm = "hidden" if backbone.family.mask_hides else "additive" if additive else "visible"
        self.rotary = RowAngles.of(backbone)
        """Replaces the rotary module where angles depend on the length of the text; else None."""
        self.kinds = list(getattr(backbone.config, "layer_types", None) or [""] * self.depth)
        family, layers = backbone.family, backbone.layers
        self.keyless = frozenset(i for i, layer in enumerate(layers) if attention_of(family, layer) is None)
        """Layers without attention: a recurrent module stands in its place."""
        recurrent = {i for i, layer in enumerate(layers) if recurrent_of(family, layer) is not None}
        self._by_column = frozenset(range(self.depth) if family.counts_keys else recurrent)
        self.stock: list[StockLayer] = []
        """The stock layers, while the gates are installed."""
        self.routing: Plan | None = None
        self._shadows = Shadows()
        self._devices = [backbone.place(layer) for layer in backbone.layers] if backbone.spread else None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Replace the layers' `forward` for a while; module tree, names, hooks and state dict stay as they are."""
        layers, put = self.backbone.layers, self._shadows.put
        assert not any(map(_gated, layers)), "this model is already in use by another engine"
        try:
            for module in self._replaced:
                if (faster := self._faster(module)) is not None:
                    put(module, faster)
            if self.rotary is not None:
                put(rotary_module(self.backbone), self.rotary.forward)
            sublayers = Sublayers(self.backbone, put)
            for index, layer in enumerate(layers):
                step = StockLayer(index, layer, self.backbone.family, sublayers)
                self.stock.append(step)
                put(layer, partial(self._layer, index, step))
                step.install(self._shadows)
            head = resolve(self.backbone.model, self.backbone.family.head[-1])
            put(head, partial(self._head, head.forward))
            yield
        finally:
            self._shadows.undo()
            self.stock, self.routing = [], None
            for name in ("cache", "ledger", "watch", "_past", "_eased"):
                vars(self).pop(name, None)  # a wave's memory must not outlive the wave

    def begin(
        self,
        cache: RowCache,
        ledger: Ledger,
        routing: Plan | None,
        angles: Angles,
        watch: Watch | None = None,
        length: int = 0,
    ) -> None:
        """Prepare for one forward of the model.

        Args:
            cache: holds the living rows.
            ledger: charged per row; its forward has begun.
            routing: None runs every layer.
            angles: keeps the rotary angles of tokens that skip layers.
            watch: called before each layer, and at the end with the depth and the states that leave the last layer.
            length: least length of text that rotary angles are made for, where whole texts are read.
        """
        self.cache, self.ledger, self.routing, self.watch = cache, ledger, routing, watch
        self._past = PastRunner(cache, ledger, angles, by_column=self._by_column, form=self.mask_form)
        self._eased: list[tuple[Any, Any, dict[str, Any]]] = []
        if self.rotary is not None:
            self.rotary.begin(reads=not cache.seen, least=length)
        if routing is not None:
            routing.begin(cache, ledger)

    def _layer(self, index: int, stock: StockLayer, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Stand in for the `forward` of a layer."""
        kwargs |= zip(self.names, args, strict=False)
        step: LayerStep = stock
        several = hidden.shape[1] > 1  # no past tokens are due then, so angles are noted in the stock layer's form
        if self.fused is not None and (not several or self.fused[index].several):
            step = self.fused[index]
            if several:
                kwargs |= self._ease(kwargs, hidden.dtype)
        return self.layer(index, step, hidden, kwargs)

    def _ease(self, kwargs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
        """Convert a boolean mask and plain angles to what fused layers compute with, once per forward."""
        mask, angles = kwargs.get("attention_mask"), kwargs.get("position_embeddings")
        for known_mask, known_angles, made in self._eased:
            if known_mask is mask and known_angles is angles:
                return made
        made = {}
        if mask is not None and mask.dtype is torch.bool:
            made["attention_mask"] = hiding(mask, dtype)
        if angles is not None:
            cos, sin = angles
            made |= {"position_embeddings": (cos, signed(sin)), "signed": True}
        self._eased.append((mask, angles, made))
        return made

    def layer(self, index: int, step: LayerStep, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
        """Run one layer for the rows that run it.

        Args:
            index: of the layer.
            step: how it runs.
            hidden: [alive, positions, W].
            kwargs: the stock layer's other arguments, by name; not changed.
        """
        if self._devices is not None:
            hidden, kwargs = send_to_device((hidden, kwargs), self._devices[index], skip_keys="past_key_values")
        if self.watch is not None:
            self.watch(index, hidden)
        out = self._routed(index, step, hidden, kwargs)
        if self.watch is not None and index == self.depth - 1:
            self.watch(self.depth, out[0] if isinstance(out, tuple) else out)
        return out

    def _routed(self, index: int, step: LayerStep, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
        routing = self.routing
        if routing is None:
            return self._whole(index, step, hidden, kwargs)
        if routing.resumes:
            hidden = routing.enters(index, hidden)
        groups, policy = routing.decide(index, hidden), self._policy(index)
        if policy is not None:
            self._past.note_angles(index, step, kwargs)
        everybody = len(groups) == 1 and groups[0][1] is None and groups[0][0] == _RUN
        if everybody and routing.scale is None and (policy is None or not policy.affects(index)):
            routing.ran(None, hidden)
            return self._whole(index, step, hidden, kwargs)
        call = LayerCall(index, step, hidden, kwargs)
        attending = [slots for code, slots in groups if code & _ATTN]
        owed = None
        if policy is not None and attending:
            owed = self._past.catch_up(call, policy, attending)
        out, some = hidden, _some(call, groups, policy)
        if some is not None:
            out = self._run_some(call, some, policy, owed)
            routing.ran(some, hidden)
        else:
            for code, slots in groups:
                out = self._run(call, code, slots, out, owed if code & _ATTN else None)
                routing.ran(slots, hidden)
        if not everybody:
            self.ledger.acted = True
            if some is None and policy is not None and (routing.live is None or index in routing.live):
                self._note_skipped(index, policy, attending, hidden)
            if routing.bypasses:
                out = self._bypass(index, routing, groups, hidden, out)
        return (out, None) if self.backbone.family.returns_tuple else out

    def _policy(self, index: int) -> KVPolicy | None:
        """The KV policy of a layer; None where no row ever returns to what it skipped.

        A recurrent layer has no keys and values: a row that skips it leaves its state as it was, unless the policy
        runs what was skipped.
        """
        policy = None if self.routing is None else self.routing.kv_policy
        return policy if policy is None or policy.reruns or index not in self.keyless else None

    def _whole(self, index: int, step: LayerStep, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
        """Run the whole layer for every row."""
        self.ledger.layer(index, _RUN, None)
        out = step(hidden, **kwargs)
        return (out, None) if self.backbone.family.returns_tuple and isinstance(out, Tensor) else out

    def _run(self, call: LayerCall, code: int, slots: Slots | None, into: Tensor, owed: Owed | None) -> Tensor:
        """Run a part of the layer for some rows, and put their new states into those of all."""
        hidden, kwargs = call.hidden, call.kwargs
        if slots is not None and (run_rows := call.step.run_rows) is not None:
            out = run_rows(hidden, slots, code, into)
            self.ledger.layer(call.index, code, slots)
            if self.routing is None or self.routing.scale is None:
                return out
            those = on(slots, hidden.device)
            return out.index_copy(0, those, self._scaled(hidden[those], out[those], those))
        rows = None if slots is None else on(slots, hidden.device)
        states = hidden if rows is None else hidden[rows]
        if rows is not None:
            shared = self.backbone.family.shared
            kwargs = {k: x if k in shared else take(x, rows, hidden.shape[0]) for k, x in kwargs.items()}
        policy = self._policy(call.index)
        if policy is not None and (visible := policy.visible(call.index, rows)) is not None:
            mask = kwargs.get("attention_mask")
            mask = add_to_mask(mask, visible, form=self.mask_form, dtype=hidden.dtype)
            kwargs = {**kwargs, "attention_mask": mask, PADDING_ONLY: False}
            if code & _ATTN and self.ledger.metered:
                self.ledger.hide(call.index, slots, policy.hidden_count(call.index, slots))
        if rows is None:
            out = call.step(states, part=code, owed=owed, **kwargs)
        else:
            with self.cache.only(rows):
                out = call.step(states, part=code, owed=owed, **kwargs)
        self.ledger.layer(call.index, code, slots)
        out = self._scaled(states, out[0] if isinstance(out, tuple) else out, rows)
        return out if rows is None else into.index_copy(0, rows, out)

    def _run_some(self, call: LayerCall, slots: Slots, policy: KVPolicy | None, owed: Owed | None) -> Tensor:
        """Run the layer for some rows, and make keys and values of all."""
        assert call.step.run_some is not None
        kept = policy is not None
        out, extra = call.step.run_some(call.hidden, slots, owed, call.kwargs, kept)
        self.ledger.layer(call.index, _RUN, slots)
        self.ledger.beside(call.index, extra, kept=kept)
        return self._scaled(call.hidden, out, None)

    def _scaled(self, states: Tensor, out: Tensor, rows: Tensor | None) -> Tensor:
        """Multiply what a layer added to the states of these rows, or of all, by their scale."""
        if self.routing is None or (scale := self.routing.scale) is None:
            return out
        scale = (scale if rows is None else scale[rows]).to(states)
        return states + scale[:, None, None] * (out - states)

    def _note_skipped(self, index: int, policy: KVPolicy, attending: list[Slots | None], hidden: Tensor) -> None:
        """Tell the KV policy which rows made no keys and values in a layer."""
        rest = None
        if attending:
            absent = np.ones(self.cache.alive, dtype=bool)
            for slots in attending:
                absent[slice(None) if slots is None else slots] = False
            rest = np.flatnonzero(absent)
        if rest is None or len(rest):
            policy.skipped(index, rest, hidden)

    def _bypass(self, index: int, routing: Plan, groups: Groups, hidden: Tensor, out: Tensor) -> Tensor:
        """Put the tokens that skip the layer through the method's module instead."""
        module = routing.bypass(index)
        if module is None or not len(slots := routing.passing(groups)):
            return out
        rows = on(slots, hidden.device)
        states = hidden[rows]
        try:
            if next(chain(module.parameters(), module.buffers()), hidden).device != hidden.device:
                module.to(hidden.device)
            added, flops = counted(lambda: module(states[:, 0].float()), metered=self.ledger.metered)
            added = added.expand(len(slots), hidden.shape[-1])
        except RuntimeError as error:
            raise routing.bypass_failed(index, error) from error
        if flops:
            self.ledger.router(self.ledger.rows[slots], flops)
        if routing.scale is not None:
            added = added * routing.scale[rows].to(added)[:, None]
        return out.index_copy(0, rows, states + added[:, None].to(states))

    def _head(self, forward: Forward, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Stand in for the LM head: logits of exited tokens that are known already are not computed again."""
        known = [] if self.routing is None else self.routing.known
        if not known or hidden.ndim != 3:
            out: Tensor = forward(hidden, *args, **kwargs)
            return out
        slots, logits = np.concatenate([s for s, _ in known]), torch.cat([x for _, x in known])
        out = logits.new_empty(len(hidden), 1, logits.shape[-1])
        out[on(slots, hidden.device), 0] = logits
        rest = np.setdiff1d(np.arange(len(hidden)), slots)
        if len(rest):
            rows = on(rest, hidden.device)
            out[rows] = forward(hidden[rows], *args, **kwargs)
        return out


def _some(call: LayerCall, groups: Groups, policy: KVPolicy | None) -> Slots | None:
    """The rows that run a layer in which keys and values of all rows are made together; None where they are not."""
    if call.step.run_some is None or len(groups) != 1 or call.hidden.shape[1] > 1:
        return None
    ((code, slots),) = groups
    if slots is None or code != _RUN or len(slots) * _SOME < len(call.hidden):
        return None
    return slots if policy is None or policy.from_states else None
