"""Gates around the layers of a stock model: rows that skip a layer are truly not run through it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlbench.backbones import Backbone, resolve
from dlbench.engine.cache import RowCache
from dlbench.engine.meter import Costs, Ledger, TensorWork
from dlbench.engine.view import LiveView
from dlbench.errors import DlbenchError
from dlbench.method import Action, Method, Static

Slots = NDArray[np.int64]
Forward = Callable[..., Any]
_NONE: Slots = np.zeros(0, dtype=np.int64)


def take(x: Any, rows: Tensor, batch: int) -> Any:
    """The given rows of a layer's argument; a first dimension of 1 broadcasts, tuples recurse."""
    if isinstance(x, Tensor):
        return x[rows] if x.ndim and x.shape[0] == batch else x
    if isinstance(x, (tuple, list)):
        return type(x)(take(y, rows, batch) for y in x)
    if isinstance(x, dict):
        return {k: take(y, rows, batch) for k, y in x.items()}
    return x


class Traffic:
    """One forward under way: who is in it and what its tokens cost. Arrays are per slot, alive rows only."""

    def __init__(self, tokens: Slots, keys: Slots, columns: int, padded_keys: int) -> None:
        self.tokens = tokens
        """True tokens of each row in this forward."""
        self.keys = keys
        """Query-key pairs of each row over its true context."""
        self.columns = columns
        """Tokens per row as executed, padding included."""
        self.padded_keys = padded_keys
        """Query-key pairs per row as executed."""


class Gates:
    """Routes the rows of a forward through the layers, executes the answer and charges it."""

    def __init__(self, backbone: Backbone, costs: Costs) -> None:
        self.backbone, self.costs = backbone, costs
        self.names = list(inspect.signature(backbone.layers[0].forward).parameters)[1:]  # after the hidden state
        self.depth = backbone.depth
        self.filling = False
        self.angles: tuple[Tensor, ...] | None = None

    # ---- installing

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Shadow the layers' `forward`; module tree, names, hooks and state dict stay, and all is undone at the end."""
        patched: list[Any] = []

        def patch(module: Any, around: Callable[..., Any]) -> None:
            assert "forward" not in vars(module), "this model is already in use by another engine"
            module.forward = partial(around, module.forward)
            patched.append(module)

        try:
            for index, layer in enumerate(self.backbone.layers):
                patch(layer, partial(self._layer, index))
                if self.backbone.family.query is not None:
                    patch(resolve(layer, self.backbone.family.query), self._query)
            yield
        finally:
            for module in patched:
                del module.forward

    # ---- one forward

    def begin(
        self,
        cache: RowCache,
        ledger: Ledger,
        traffic: Traffic,
        method: Method | None,
        view: LiveView | None,
        starts: Slots,
    ) -> None:
        """Prepare for one forward of the model.

        Args:
            cache: holds the alive rows.
            ledger: charged per row.
            traffic: what each alive row brings.
            method: None runs everything.
            view: the method's view, prepared for this step.
            starts: column of each alive row's first true token.
        """
        self.cache, self.ledger, self.traffic = cache, ledger, traffic
        self.method, self.view, self.starts = method, view, starts
        self.rows: Slots = cache.order[: cache.alive].copy()
        self.awake: Slots | None = None
        self.trail: list[tuple[Slots | None, Tensor]] = []
        self.live = method.live(self.depth) if method is not None else None
        self.lazy = method is not None and method.scope == "token"
        if view is not None:
            view.attach(self)
        # projections around the stack run at every position, the LM head at one
        fixed = self.costs.input + self.costs.head - self.costs.vocabulary
        ledger.charge("heads", self.rows, fixed * traffic.tokens, fixed * traffic.columns)

    def _layer(self, index: int, forward: Forward, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs = {**dict(zip(self.names, args, strict=False)), **kwargs}
        if index == 0:
            self.embedded = hidden
            if self.lazy:
                self._note_angles(kwargs)
        run = None if self.method is None else self._decide(index, hidden)
        if self.method is not None and not isinstance(self.method, Static):
            self._hold(index, run)
        if run is None:
            if self.lazy:
                self._settle(index, None, forward, kwargs)
            out = forward(hidden, **kwargs)
        elif not len(run):
            out = hidden
        else:
            if self.lazy:
                self._settle(index, run, forward, kwargs)
            rows = torch.from_numpy(run).to(hidden.device)
            with self.cache.only(rows):
                out = forward(hidden[rows], **take(kwargs, rows, hidden.shape[0]))
            out = hidden.index_copy(0, rows, out)
        if run is None or len(run):
            self.trail.append((run, hidden))
            self._charge_layer(index, run)
        if run is not None:
            self.ledger.acted = True
            if self.lazy and (self.live is None or index in self.live):
                rest = None if not len(run) else np.setdiff1d(np.arange(self.cache.alive), run)
                self.cache.owe(index, rest, hidden[:, 0])
        return out

    def _decide(self, index: int, hidden: Tensor) -> Slots | None:
        """Slots that run the layer; None stands for all alive ones."""
        assert self.method is not None and self.view is not None
        if self.awake is not None and not len(self.awake):
            return _NONE
        self.view.arrive(index, hidden)
        awake_rows = self.rows if self.awake is None else self.rows[self.awake]
        answer = self._ask(awake_rows)
        if isinstance(answer, Tensor):
            codes = self._codes(answer, len(awake_rows))
            if (codes == codes[0]).all():
                return self._all(int(codes[0]))
            slots = np.arange(self.cache.alive) if self.awake is None else self.awake
            leaving = codes == Action.EXIT
            if leaving.any():
                self.awake = slots[~leaving]
            running: Slots = slots[codes == Action.RUN]
            return running
        return self._all(int(answer) if isinstance(answer, int) else self._refuse(answer))

    def _hold(self, index: int, run: Slots | None) -> None:
        """Hold a method to its scope and its live layers: what it gives up has no keys and values to come back to.

        Raises:
            DlbenchError: a row changed its answer, or runs a layer said never to run.
        """
        assert self.method is not None and self.view is not None
        name = type(self.method).__name__
        if self.live is not None and index not in self.live and (run is None or len(run)):
            raise DlbenchError(f"method {name} ran layer {index}, which its live() leaves out")
        if self.lazy:
            return
        now = np.zeros(self.cache.alive, dtype=np.int8)
        now[slice(None) if run is None else run] = 1
        before = self.view.promised[index, self.rows]
        if ((before >= 0) & (before != now)).any():
            raise DlbenchError(
                f"method {name} has scope {self.method.scope!r} but changed its answer at layer {index} within a "
                "sequence; its scope is 'token'"
            )
        self.view.promised[index, self.rows] = now

    def _ask(self, awake_rows: Slots) -> Action | Tensor:
        """The method's answer, its matrix work charged, its failure named."""
        assert self.method is not None and self.view is not None
        try:
            if not self.ledger.metered:
                return self.method.route(self.view)
            with TensorWork() as work:
                self.view.work = work
                answer = self.method.route(self.view)
        except DlbenchError:
            raise
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise DlbenchError(
                f"method {type(self.method).__name__} failed before layer {self.view.layer} at step {self.view.step}: "
                f"{type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
            ) from error
        if work.flops:
            count = len(awake_rows)  # what the rows share is spread over them, to the last FLOP
            self.ledger.charge("router", awake_rows, (work.flops + np.arange(count)) // count)
        return answer

    def _all(self, code: int) -> Slots | None:
        """The same answer for every awake row."""
        if code == Action.RUN:
            return self.awake
        if code == Action.EXIT:
            self.awake = _NONE
        elif code != Action.SKIP:
            self._refuse(code)
        return _NONE

    def _codes(self, answer: Tensor, count: int) -> Slots:
        if answer.shape != (count,):
            raise DlbenchError(
                f"method {type(self.method).__name__} answered a tensor of shape {tuple(answer.shape)} for {count} "
                "tokens; route() gives one code per token of the view, or one Action for all"
            )
        if answer.is_floating_point():
            self._refuse(answer.dtype)
        codes = answer.to("cpu", torch.int64)
        if answer.dtype == torch.bool:
            codes = codes * int(Action.RUN)
        found = codes.numpy()
        strange = set(found.tolist()) - {int(Action.SKIP), int(Action.RUN), int(Action.EXIT)}
        if strange:
            self._refuse(min(strange))
        return found

    def _refuse(self, answer: object) -> NoReturn:
        raise DlbenchError(
            f"method {type(self.method).__name__} answered {answer!r}; an action is SKIP (0), RUN (3) or EXIT (4), or "
            "a tensor of such codes or of booleans; half layers (ATTN, MLP) are not executed yet"
        )

    def _charge_layer(self, index: int, run: Slots | None) -> None:
        traffic, costs = self.traffic, self.costs
        rows = self.rows if run is None else self.rows[run]
        tokens = traffic.tokens if run is None else traffic.tokens[run]
        keys = traffic.keys if run is None else traffic.keys[run]
        linear = costs.layer[index]
        self.ledger.calls[rows] += 1
        self.ledger.charge("layers", rows, linear * tokens, linear * traffic.columns)
        self.ledger.charge(
            "attention", rows, costs.attention_per_key * keys, costs.attention_per_key * traffic.padded_keys
        )

    # ---- keys and values of skipped tokens

    def _note_angles(self, kwargs: dict[str, Any]) -> None:
        """Keep this step's rotary angles by absolute position: a later fill needs them."""
        angles = kwargs.get("position_embeddings")
        if angles is None:
            return
        if self.angles is None or self.angles[0].shape[0] < self.cache.length:
            self.angles = tuple(a.new_zeros(self.cache.length, a.shape[-1]) for a in angles)
        at = torch.from_numpy(self.cache.seen - self.starts).to(angles[0].device)
        for table, a in zip(self.angles, angles, strict=True):
            table[at] = a[:, 0] if a.shape[0] == len(at) else a[:, 0].expand(len(at), -1)

    def _settle(self, index: int, run: Slots | None, forward: Forward, kwargs: dict[str, Any]) -> None:
        """Make the K and V that the rows about to run still owe this layer: the stock layer up to its cache update."""
        due = self.cache.settle(index, run)
        if due is None:
            return
        host, rows, columns, states = due
        where = columns - torch.from_numpy(self.starts[host]).to(columns.device)
        kwargs = {k: None if isinstance(v, Tensor) and v.ndim == 4 else v for k, v in kwargs.items()}
        if kwargs.get("position_ids") is not None:
            kwargs["position_ids"] = where[:, None]
        if kwargs.get("position_embeddings") is not None:
            assert self.angles is not None
            kwargs["position_embeddings"] = tuple(table[where][:, None] for table in self.angles)
        self.filling = True
        try:
            with self.cache.only(rows, columns):
                forward(states[:, None], **kwargs)
        finally:
            self.filling = False
        self.ledger.charge("kv", self.rows[host], int(self.costs.fill[index]))

    def _query(self, forward: Forward, hidden: Tensor) -> Any:
        """A query projection is not needed while only K and V are written."""
        if not self.filling:
            return forward(hidden)
        return hidden.new_zeros(*hidden.shape[:-1], forward.__self__.out_features)  # type: ignore[attr-defined]
