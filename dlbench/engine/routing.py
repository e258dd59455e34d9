"""One method on one run: ask it layer by layer, and hold it to its word."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from dlbench.engine import answers
from dlbench.engine.cache import RowCache, Slots
from dlbench.engine.debts import Debts
from dlbench.engine.meter import Ledger
from dlbench.engine.view import LiveView
from dlbench.errors import DlbenchError
from dlbench.method import Action, Method, Static

Groups = list[tuple[int, Slots | None]]
"""Which part of the layer which slots run; None stands for all alive ones."""
_NONE: Slots = np.zeros(0, dtype=np.int64)


class Routing:
    """Decides, in every forward of a run, which rows run which part of a layer."""

    def __init__(self, method: Method, view: LiveView, debts: Debts | None) -> None:
        """Prepare.

        Args:
            method: asked before every layer.
            view: what it sees.
            debts: what skipped tokens owe; None where nobody comes back to a layer.
        """
        self.method, self.view, self.debts = method, view, debts
        self.live = method.live(view.depth)
        self.awake: Slots | None = None
        """Slots of the tokens that have not exited; None for all."""

    def begin(self, cache: RowCache, ledger: Ledger) -> None:
        """A forward of the cache's living rows starts."""
        self.cache, self.ledger = cache, ledger
        self.rows: Slots = cache.order[: cache.alive].copy()
        self.awake = None
        self.view.attach(self.rows, cache, ledger)

    def decide(self, layer: int, hidden: Tensor) -> Groups:
        """Who runs what of a layer; `hidden` [alive, positions, W] would enter it.

        Raises:
            DlbenchError: the method fails, gives no answer, or breaks its word.
        """
        if isinstance(self.method, Static):  # says it all in `live`
            assert self.live is not None
            return [(int(Action.RUN), None)] if layer in self.live else []
        groups = self._ask(layer, hidden)
        self._hold(layer, groups)
        return groups

    def _ask(self, layer: int, hidden: Tensor) -> Groups:
        if self.awake is not None and not len(self.awake):
            return []
        self.view.arrive(layer, hidden, self.awake)
        answer, flops = answers.ask(self.method, self.view, metered=self.ledger.metered)
        if flops:
            self.ledger.router(self.rows if self.awake is None else self.rows[self.awake], flops)
        if self.debts is not None and not self.debts.skips:
            self._only_exits(answer)
        if isinstance(answer, int):
            groups = [(answer, self.awake)] if answer & Action.RUN else []
            if answer == Action.EXIT:
                self.awake = _NONE
            return groups
        slots = np.arange(self.cache.alive) if self.awake is None else self.awake
        if (leaving := answer == Action.EXIT).any():
            self.awake = slots[~leaving]
        parts = (Action.RUN, Action.ATTN, Action.MLP)
        return [(int(part), slots[answer == part]) for part in parts if (answer == part).any()]

    def _only_exits(self, answer: int | Slots) -> None:
        if not set(np.unique(answer).tolist()) <= {int(Action.RUN), int(Action.EXIT)}:
            raise DlbenchError(
                f"method {type(self.method).__name__} skipped a layer; kv policy recompute is for methods that exit"
            )

    def _hold(self, layer: int, groups: Groups) -> None:
        """Hold a method to its scope and its live layers: what it gives up has no keys and values to come back to.

        Raises:
            DlbenchError: a row changed its answer, or runs a layer said never to run.
        """
        name = type(self.method).__name__
        if self.live is not None and layer not in self.live and groups:
            raise DlbenchError(f"method {name} ran layer {layer}, which its live() leaves out")
        if self.method.scope == "token":
            return
        now = np.zeros(self.cache.alive, dtype=np.int8)
        for code, slots in groups:
            now[slice(None) if slots is None else slots] = code
        before = self.view.promised[layer, self.rows]
        if ((before >= 0) & (before != now)).any():
            raise DlbenchError(
                f"method {name} has scope {self.method.scope!r} but changed its answer at layer {layer} within a "
                "sequence; its scope is 'token'"
            )
        self.view.promised[layer, self.rows] = now
