"""Gates around the layers of a stock model: rows that skip a layer are truly not run through it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from dlbench.engine.flops.costs import Costs
from dlbench.engine.flops.ledger import Ledger
from dlbench.engine.kernels.cuda_graphs import CapturedLayer
from dlbench.engine.kernels.fused_layer import FusedLayer, signed
from dlbench.engine.kernels.fused_model import hiding
from dlbench.engine.kernels.linear import quick
from dlbench.engine.kv.policies import Debts, Owed, Past, add_to_mask
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.layers.call_args import Angles, of_past, past_mask, take
from dlbench.engine.layers.rotary_tables import RowAngles, module_of
from dlbench.engine.layers.sublayers import Halves
from dlbench.engine.routing.decisions import counted
from dlbench.engine.routing.method_plan import Groups, Plan
from dlbench.method import Action
from dlbench.models.backbone import Backbone
from dlbench.models.families import resolve

Forward = Callable[..., Any]
_ATTN, _RUN = int(Action.ATTN), int(Action.RUN)  # of an enumeration's own operators each call would take a microsecond


def _gated(layer: nn.Module) -> bool:
    """Whether gates stand before a layer."""
    forward = vars(layer).get("forward")
    return isinstance(forward, partial) and getattr(forward.func, "__func__", None) is Gates._layer


class Gates:
    """Routes the rows of a forward through the layers, executes the answer and charges it."""

    def __init__(self, backbone: Backbone, costs: Costs, fused: Sequence[FusedLayer] | None, accelerate: bool) -> None:
        """Prepare; nothing is shadowed yet.

        Args:
            backbone: stays as it is.
            costs: what to charge.
            fused: one per layer; None runs the stock layers.
            accelerate: whether plain linear maps may run as another, equal product.
        """
        self.backbone, self.costs, self.fused = backbone, costs, fused
        self._plain = [m for m in backbone.model.modules() if quick(m) is not None] if accelerate else []
        self.names = list(inspect.signature(backbone.layers[0].forward).parameters)[1:]  # after the hidden state
        self.depth = backbone.depth
        self.filling = False
        self.additive = backbone.model.config._attn_implementation != "sdpa"
        self.rotary = RowAngles.of(backbone)
        """Stands in for the module that makes rotary angles, where they depend on the length of the text."""
        self.kinds = list(getattr(backbone.model.config, "layer_types", None) or [""] * self.depth)
        self._shadowed: list[tuple[nn.Module, Forward | None]] = []
        self._devices = [backbone.place(layer) for layer in backbone.layers] if backbone.spread else None

    # ---- installing

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Shadow the layers' `forward`; module tree, names, hooks and state dict stay, and all is undone at the end."""
        query, layers = self.backbone.family.query, self.backbone.layers
        assert not any(map(_gated, layers)), "this model is already in use by another engine"
        try:
            for module in self._plain:
                if (faster := quick(module)) is not None:
                    self._shadow(module, faster)
            if self.rotary is not None:
                self._shadow(module_of(self.backbone), self.rotary.forward)
            for index, layer in enumerate(layers):
                self._shadow(layer, partial(self._layer, index, layer.forward))
                if query is not None:
                    projection = resolve(layer, query)
                    self._shadow(projection, partial(self._query, projection.forward, projection.out_features))
            self.halves = Halves(self.backbone, self._shadow)
            head = resolve(self.backbone.model, self.backbone.family.head[-1])
            self._shadow(head, partial(self._head, head.forward))
            yield
        finally:
            while self._shadowed:
                module, before = self._shadowed.pop()
                if before is None:
                    del module.forward
                else:
                    module.forward = before
            for name in ("cache", "ledger", "routing", "angles", "watch", "_eased"):
                vars(self).pop(name, None)  # a wave's memory is its own

    def _shadow(self, module: nn.Module, forward: Forward) -> None:
        before = vars(module).get("forward")
        # accelerate hangs its hooks there too: they are called by what takes their place, and put back in the end
        if before is None or all(module is not shadowed for shadowed, _ in self._shadowed):
            self._shadowed.append((module, before))
        vars(module)["forward"] = forward

    # ---- one forward

    def begin(
        self,
        cache: RowCache,
        ledger: Ledger,
        routing: Plan | None,
        angles: Angles,
        watch: Callable[[int, Tensor], None] | None = None,
        length: int = 0,
    ) -> None:
        """Prepare for one forward of the model.

        Args:
            cache: holds the living rows.
            ledger: charged per row; its forward has begun.
            routing: None runs everything.
            angles: noted wherever there are debts.
            watch: called with each layer and the states that would enter it, [alive, positions, W]; at last with the
                depth and the states that leave the stack.
            length: of the text that rotary angles are made for at least, where whole texts are read.
        """
        self.cache, self.ledger, self.routing, self.angles, self.watch = cache, ledger, routing, angles, watch
        self.starts: Slots = cache.starts[: cache.alive]
        self._eased: list[tuple[Any, Any, dict[str, Any]]] = []
        if self.rotary is not None:
            self.rotary.begin(reads=not cache.seen, least=length)
        if routing is not None:
            routing.begin(cache, ledger)

    def _layer(self, index: int, forward: Forward, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs |= zip(self.names, args, strict=False)
        several = hidden.shape[1] > 1  # never where anything is owed: angles are noted as a stock layer takes them
        if self.fused is not None and (not several or self.fused[index].several):
            forward = self.fused[index]
            if several:
                kwargs |= self._ease(kwargs, hidden.dtype)
        return self.layer(index, forward, hidden, kwargs)

    def _ease(self, kwargs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
        """What fused layers would each make of a mask of booleans and of plain angles, made once per forward."""
        mask, angles = kwargs.get("attention_mask"), kwargs.get("position_embeddings")
        for known, turned, made in self._eased:
            if known is mask and turned is angles:
                return made
        made = {}
        if mask is not None and mask.dtype is torch.bool:
            made["attention_mask"] = hiding(mask, dtype)
        if angles is not None:
            cos, sin = angles
            made |= {"position_embeddings": (cos, signed(sin)), "signed": True}
        self._eased.append((mask, angles, made))
        return made

    def layer(self, index: int, forward: Forward, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
        """Route one layer: whoever runs it does so by `forward`, or its fused step where there is one.

        Args:
            index: of the layer.
            forward: the stock layer's, without a gate, or what stands in for it.
            hidden: [alive, positions, W].
            kwargs: the layer's other arguments, by name; stay as they are.
        """
        if self._devices is not None:
            hidden, kwargs = send_to_device((hidden, kwargs), self._devices[index], skip_keys="past_key_values")
        if self.watch is not None:
            self.watch(index, hidden)
        out = self._routed(index, forward, hidden, kwargs)
        if self.watch is not None and index == self.depth - 1:
            self.watch(self.depth, out[0] if isinstance(out, tuple) else out)
        return out

    def _routed(self, index: int, forward: Forward, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
        routing = self.routing
        if routing is None:
            return self._whole(index, forward, hidden, kwargs)
        if routing.resumes:
            hidden = routing.enters(index, hidden)
        groups, debts = routing.decide(index, hidden), routing.debts
        if debts is not None and index in self.angles.firsts and not isinstance(forward, CapturedLayer):
            self.angles.note(index, kwargs, self.cache.seen - self.starts)
        everybody = len(groups) == 1 and groups[0][1] is None and groups[0][0] == _RUN
        if everybody and routing.scale is None and (debts is None or not debts.concern(index)):
            routing.ran(None, hidden)
            return self._whole(index, forward, hidden, kwargs)
        attending = [slots for code, slots in groups if code & _ATTN]
        owed = None
        if debts is not None and attending:
            owed = self._catch_up(index, debts, attending, forward, kwargs, hidden)
        out = hidden
        for code, slots in groups:
            out = self._run(index, code, slots, forward, kwargs, hidden, out, owed if code & _ATTN else None)
            routing.ran(slots, hidden)
        if not everybody:
            self.ledger.acted = True
            self._pass(index, routing, attending, hidden)
            if routing.bypasses:
                out = self._bypass(index, routing, groups, hidden, out)
        return (out, None) if self.backbone.family.returns_tuple else out

    def _whole(self, index: int, forward: Forward, hidden: Tensor, kwargs: dict[str, Any]) -> Any:
        """Every row runs the whole layer, as it stands."""
        self.ledger.layer(index, _RUN, None)
        out = forward(hidden, **kwargs)
        return (out, None) if self.backbone.family.returns_tuple and isinstance(out, Tensor) else out

    def _run(
        self,
        index: int,
        code: int,
        slots: Slots | None,
        forward: Forward,
        kwargs: dict[str, Any],
        hidden: Tensor,
        into: Tensor,
        owed: Owed | None,
    ) -> Tensor:
        """One part of the layer for some rows, put into the states of all."""
        if slots is not None and isinstance(forward, CapturedLayer):
            out = forward.some(hidden, slots, code, into)
            self.ledger.layer(index, code, slots)
            if self.routing is None or self.routing.scale is None:
                return out
            those = self._on(slots, hidden)
            return out.index_copy(0, those, self._scaled(hidden[those], out[those], those))
        rows = None if slots is None else self._on(slots, hidden)
        states = hidden if rows is None else hidden[rows]
        if rows is not None:
            kwargs = take(kwargs, rows, hidden.shape[0])
        debts = None if self.routing is None else self.routing.debts
        if debts is not None and (there := debts.seen(index, rows)) is not None:
            mask = kwargs.get("attention_mask")
            kwargs = {**kwargs, "attention_mask": add_to_mask(mask, there, additive=self.additive, dtype=hidden.dtype)}
            if code & _ATTN and self.ledger.metered:
                self.ledger.hide(slots, debts.hidden(index, slots))
        if rows is None:
            out = self._part(index, code, forward, states, kwargs, owed)
        else:
            with self.cache.only(rows):
                out = self._part(index, code, forward, states, kwargs, owed)
        self.ledger.layer(index, code, slots)
        out = self._scaled(states, out, rows)
        return out if rows is None else into.index_copy(0, rows, out)

    def _scaled(self, states: Tensor, out: Tensor, rows: Tensor | None) -> Tensor:
        """What a layer made of the states of these rows, or of all; what it has added is multiplied by their scale."""
        if self.routing is None or (scale := self.routing.scale) is None:
            return out
        scale = (scale if rows is None else scale[rows]).to(states)
        return states + scale[:, None, None] * (out - states)

    def _part(
        self,
        index: int,
        code: int,
        forward: Forward,
        states: Tensor,
        kwargs: dict[str, Any],
        owed: Owed | None = None,
    ) -> Tensor:
        if isinstance(forward, (FusedLayer, CapturedLayer)):
            return forward(states, part=code, owed=owed, **kwargs)
        if code == _RUN:
            out = forward(states, **kwargs)
        else:
            with self.halves.only(index, code):
                out = forward(states, **kwargs)
        state: Tensor = out[0] if isinstance(out, tuple) else out
        return state

    def _pass(self, index: int, routing: Plan, attending: list[Slots | None], hidden: Tensor) -> None:
        """Note who made no keys and values in a layer, where anybody may come back to it."""
        if routing.debts is None or (routing.live is not None and index not in routing.live):
            return
        rest = None
        if attending:
            absent = np.ones(self.cache.alive, dtype=bool)
            for slots in attending:
                absent[slice(None) if slots is None else slots] = False
            rest = np.flatnonzero(absent)
        if rest is None or len(rest):
            routing.debts.passed(index, rest, hidden)

    def _bypass(self, index: int, routing: Plan, groups: Groups, hidden: Tensor, out: Tensor) -> Tensor:
        """Put those that skip the layer through what the method has for them instead."""
        module = routing.bypass(index)
        if module is None or not len(slots := routing.passing(groups)):
            return out
        rows = self._on(slots, hidden)
        states = hidden[rows]
        added, flops = counted(lambda: module.to(hidden.device)(states[:, 0].float()), metered=self.ledger.metered)
        if flops:
            self.ledger.router(self.ledger.rows[slots], flops)
        if routing.scale is not None:
            added = added * routing.scale[rows].to(added)[:, None]
        return out.index_copy(0, rows, states + added[:, None].to(states))

    def _head(self, forward: Forward, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The LM head, but for tokens that left where their logits had been looked at."""
        known = [] if self.routing is None else self.routing.known
        if not known or hidden.ndim != 3:
            out: Tensor = forward(hidden, *args, **kwargs)
            return out
        slots, logits = np.concatenate([s for s, _ in known]), torch.cat([x for _, x in known])
        out = logits.new_empty(len(hidden), 1, logits.shape[-1])
        out[self._on(slots, hidden), 0] = logits
        rest = np.setdiff1d(np.arange(len(hidden)), slots)
        if len(rest):
            rows = self._on(rest, hidden)
            out[rows] = forward(hidden[rows], *args, **kwargs)
        return out

    # ---- tokens of the past

    def _catch_up(
        self,
        index: int,
        debts: Debts,
        attending: list[Slots | None],
        forward: Forward,
        kwargs: dict[str, Any],
        hidden: Tensor,
    ) -> Owed | None:
        """Show the layer the past tokens that it must have seen before these rows run it.

        Returns:
            Those that a fused layer takes along in its own products; charged like the others.
        """
        one = len(attending) == 1
        past = debts.due(index, attending[0] if one else np.sort(np.concatenate(attending)))  # type: ignore[arg-type]
        if past is None:
            return None
        if not debts.attends:
            self.ledger.fill(index, past.slots)
            if isinstance(forward, CapturedLayer):
                forward.fill(past, past.columns - self.starts[past.slots])
                return None
            called = self._of_past(index, past, kwargs, hidden)
            if one and isinstance(forward, FusedLayer) and forward.merges:
                return Owed(past.states, called.get("position_embeddings"), past.places)
            self._fill(past, forward, called)
        elif self.backbone.family.counts_keys:
            # earlier columns first: later ones attend to them
            for part in past.by_column():
                self._rerun(index, debts, part, int(part.columns[0]) + 1, forward, kwargs, hidden)
        else:
            self._rerun(index, debts, past, self.cache.seen + 1, forward, kwargs, hidden)
        return None

    def _fill(self, past: Past, forward: Forward, called: dict[str, Any]) -> None:
        """Make keys and values of past tokens, and nothing else."""
        states = past.states[:, None]
        self.filling = True
        try:
            with self.cache.past(past.rows, past.at):
                forward.fill(states, **called) if isinstance(forward, FusedLayer) else forward(states, **called)
        finally:
            self.filling = False

    def _rerun(
        self, index: int, debts: Debts, past: Past, end: int, forward: Forward, kwargs: dict[str, Any], hidden: Tensor
    ) -> None:
        """Run past tokens through the layer, each over what it saw when it was new; columns to `end` are handed out."""
        called = self._of_past(index, past, kwargs, hidden)
        called["attention_mask"] = past_mask(
            kwargs.get("attention_mask"),
            past,
            self._on(self.starts[past.slots], hidden),
            self.cache.windows[index],
            range(self.cache.left, end),
            len(hidden),
            additive=self.additive,
        )
        with self.cache.past(past.rows, past.at, end):
            out = self._part(index, int(Action.RUN), forward, past.states[:, None], called)
        debts.settled(index, past, out[:, 0])
        context = past.columns + 1 - self.starts[past.slots]
        self.ledger.past_layer(index, past.slots, context, end - self.cache.left)

    def _of_past(self, index: int, past: Past, kwargs: dict[str, Any], hidden: Tensor) -> dict[str, Any]:
        where = past.columns - self.starts[past.slots]
        given = kwargs.get("position_embeddings") is not None
        angles = self.angles.of(index, where, run=past.run) if given else None
        return of_past(kwargs, past, where, angles, len(hidden))

    def _query(self, forward: Forward, width: int, hidden: Tensor) -> Any:
        """A query projection is not needed while only K and V are written."""
        return hidden.new_zeros(*hidden.shape[:-1], width) if self.filling else forward(hidden)

    @staticmethod
    def _on(slots: Slots, like: Tensor) -> Tensor:
        return on(slots, like.device)
