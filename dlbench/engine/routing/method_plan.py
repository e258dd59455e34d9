"""One method on one run: ask it layer by layer, and hold it to its word."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import final

import numpy as np
from torch import Tensor, nn

from dlbench.engine.flops.ledger import Ledger
from dlbench.engine.kv.policies import Debts, Flags
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.routing import decisions
from dlbench.engine.routing.live_view import LiveView
from dlbench.engine.routing.prompt_states import PromptStates
from dlbench.errors import DlbenchError
from dlbench.method import Action, Method, Static

Groups = list[tuple[int, Slots | None]]
"""Which part of the layer which slots run; None stands for all alive ones."""
NOBODY: Slots = np.zeros(0, dtype=np.int64)
_EXIT = int(Action.EXIT)
_PARTS = (int(Action.RUN), int(Action.ATTN), int(Action.MLP))


class Plan(ABC):
    """What the gates ask in every forward of a run: which rows run which part of a layer."""

    debts: Debts | None = None
    """What skipped tokens owe; None where nobody comes back to a layer."""
    live: frozenset[int] | None = None
    """Layers that may run; None for all."""
    scale: Tensor | None = None
    """What the layer adds, or what `passing` tokens have instead, is multiplied by this: [alive]."""
    resumes: bool = False
    """Whether something else than what the layer below gave may enter a layer."""
    bypasses: bool = False
    """Whether `passing` tokens may go through something instead of a layer."""
    known: Sequence[tuple[Slots, Tensor]] = ()
    """Slots whose logits need not be computed, and these, without a soft cap."""

    @abstractmethod
    def begin(self, cache: RowCache, ledger: Ledger) -> None:
        """A forward of the cache's living rows starts."""

    @abstractmethod
    def decide(self, layer: int, hidden: Tensor) -> Groups:
        """Who runs what of a layer; `hidden` [alive, positions, W] would enter it.

        Raises:
            DlbenchError: the method fails, gives no answer, or breaks its word.
        """

    def enters(self, layer: int, hidden: Tensor) -> Tensor:
        """What enters a layer; asked only where `resumes` says so."""
        return hidden

    def ran(self, slots: Slots | None, hidden: Tensor) -> None:
        """Some rows, or all, have run a layer, which `hidden` entered."""
        return

    def bypass(self, layer: int) -> nn.Module | None:
        """What `passing` tokens go through instead of a layer; asked only where `bypasses` says so."""
        return None

    def passing(self, groups: Groups) -> Slots:
        """Tokens that skip the whole layer, but have not left."""
        return NOBODY


@final
class Routing(Plan):
    """The plan of a method that is asked layer by layer."""

    def __init__(self, method: Method, view: LiveView, debts: Debts | None) -> None:
        """Prepare.

        Args:
            method: asked before every layer.
            view: what it sees.
            debts: what skipped tokens owe; None where nobody comes back to a layer.
        """
        self.method, self.view, self.debts = method, view, debts
        self.live = method.live(view.depth)
        self.lasting = method.scope != "token"
        """Whether an answer holds for the whole sequence."""
        self.plain = True
        """Whether no answer has ever come with a scale or something to remember."""
        self.free = self.live is None and not self.lasting
        """Whether the method has promised nothing."""
        self.fixed: list[Groups] | None = None
        """The groups of every layer, where they are known."""
        if isinstance(method, Static):
            self.fixed = [[(int(code), None)] if code else [] for code in method.actions(view.depth)]
        self.bypasses = type(method).bypass is not Method.bypass
        view.head = method.head
        self.awake: Slots | None = None
        """Slots of the tokens that have not exited; None for all."""

    def begin(self, cache: RowCache, ledger: Ledger) -> None:
        self.cache, self.ledger = cache, ledger
        self.rows: Slots = cache.order[: cache.alive].copy()
        self.awake = None
        self.scale = None
        # asked twice, so that a method that breaks its word is caught, and then held to it
        self.settled = self.lasting and self.plain and int(cache.steps.min()) >= 2
        self._known: list[tuple[Slots, Tensor]] = []
        self.known = self._known
        self.view.attach(self.rows, cache, ledger)

    def ran(self, slots: Slots | None, hidden: Tensor) -> None:
        self.view.trail.append((slots, hidden))

    def bypass(self, layer: int) -> nn.Module | None:
        return self.method.bypass(layer)

    def decide(self, layer: int, hidden: Tensor) -> Groups:
        if self.fixed is not None:
            return self.fixed[layer]
        groups = self._ask(layer, hidden)
        if not self.free:
            self._hold(layer, groups)
        return groups

    def _ask(self, layer: int, hidden: Tensor) -> Groups:
        if self.awake is not None and not len(self.awake):
            return []
        if self.settled and (codes := self.view.promised[layer, self.rows]).min() >= 0:
            return self._grouped(codes)  # every sequence has its answer
        self.view.arrive(layer, hidden, self.awake)
        answer = decisions.ask(self.method, self.view, metered=self.ledger.metered)
        if isinstance(answer, int):
            self.scale = None
            if self.debts is not None and not self.debts.skips:
                self._only_exits(answer)
            return [(answer, self.awake)] if answer else []
        rows = self.rows if self.awake is None else self.rows[self.awake]
        if answer.flops:
            self.ledger.router(rows, answer.flops)
        self.plain = self.plain and answer.scale is None and answer.memory is None
        if answer.memory is not None:
            self._remember(rows, answer.memory)
        self.scale = None if answer.scale is None else self._spread(answer.scale)
        codes = answer.codes
        if self.debts is not None and not self.debts.skips:
            self._only_exits(codes)
        if isinstance(codes, int):
            if codes == _EXIT:
                self._leave(np.ones(len(rows), dtype=bool))
                return []
            return [(codes, self.awake)] if codes else []
        awake = self.awake
        if (leaving := codes == _EXIT).any():
            self._leave(leaving)
        return self._grouped(codes, awake)

    def _grouped(self, codes: Slots, slots: Slots | None = None) -> Groups:
        """Who runs which part, of one code per slot; None for the slots of all."""
        first = int(codes[0])
        if first in _PARTS and (codes == first).all():
            return [(first, slots)]
        slots = np.arange(self.cache.alive) if slots is None else slots
        return [(part, slots[codes == part]) for part in _PARTS if (codes == part).any()]

    def _leave(self, leaving: Flags) -> None:
        """Some of the awake tokens exit; what was looked at on the way out need not be computed again."""
        slots = np.arange(self.cache.alive) if self.awake is None else self.awake
        self.awake = slots[~leaving]
        if (looked := self.view.looked) is not None:
            self._known.append((slots[leaving], looked[on(leaving, looked.device)]))

    def _spread(self, scale: Tensor) -> Tensor:
        """Numbers of the awake tokens as numbers of all living rows: [alive]."""
        if self.awake is None:
            return scale
        return scale.new_ones(self.cache.alive).index_copy(0, on(self.awake, scale.device), scale)

    def _remember(self, rows: Slots, memory: Tensor) -> None:
        view = self.view
        if view.remembered is None or view.remembered.shape[1] != memory.shape[1]:
            view.remembered = memory.new_zeros(len(view.keys), memory.shape[1])
        view.remembered[on(rows, memory.device)] = memory

    def begin_texts(self, prompt: PromptStates, ledger: Ledger) -> None:
        """Ask for what each sequence remembers at first.

        Raises:
            DlbenchError: the method fails.
        """
        try:
            memory, flops = decisions.counted(lambda: self.method.begin(prompt), metered=ledger.metered)
        except DlbenchError:
            raise
        except Exception as error:
            raise decisions.failed(self.method, "at the beginning", error) from error
        if memory is None:
            return
        if memory.ndim != 2 or len(memory) != prompt.count:
            raise DlbenchError(
                f"method {type(self.method).__name__}: begin() gave a tensor of shape {tuple(memory.shape)} for "
                f"{prompt.count} prompts; one row per prompt is wanted"
            )
        self.view.remembered = memory
        if flops:
            ledger.router(np.arange(prompt.count), flops)

    def passing(self, groups: Groups) -> Slots:
        if any(slots is None for _, slots in groups):
            return NOBODY
        there = np.zeros(self.cache.alive, dtype=bool)
        there[slice(None) if self.awake is None else self.awake] = True
        for _, slots in groups:
            there[slots] = False
        return np.flatnonzero(there)

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
        if not self.lasting:
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
