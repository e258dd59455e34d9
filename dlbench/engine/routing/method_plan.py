"""The plan of a method: ask it layer by layer, and raise if it breaks its declared scope or live layers."""

from __future__ import annotations

from typing import final

import numpy as np
from torch import Tensor, nn

from dlbench.engine.flops.ledger import Ledger
from dlbench.engine.flops.op_counter import counted
from dlbench.engine.interfaces import NOBODY, Groups, Plan
from dlbench.engine.kv.past_tokens import Flags
from dlbench.engine.kv.policy import KVPolicy
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.routing import decisions
from dlbench.engine.routing.live_view import LiveView
from dlbench.engine.routing.prompt_states import PromptStates
from dlbench.errors import DlbenchError, MethodError
from dlbench.method import Action, Method, Static
from dlbench.registry import plugin_code

_EXIT = int(Action.EXIT)
_PARTS = (int(Action.RUN), int(Action.ATTN), int(Action.MLP))


@final
class Routing(Plan):
    """The plan of a method that is asked before every layer."""

    def __init__(self, method: Method, view: LiveView, kv_policy: KVPolicy | None) -> None:
        """Prepare.

        Args:
            method: asked before every layer.
            view: what it sees.
            kv_policy: for skipped tokens; None where no row ever runs a layer that it has skipped.

        Raises:
            MethodError: the plan of a static method is not valid.
        """
        self.method, self.view, self.kv_policy = method, view, kv_policy
        self.live = method.live(view.depth)
        self.per_sequence = method.scope != "token"
        """Whether an answer must hold for the whole sequence."""
        self.only_codes = True
        """Whether no answer has had a scale or a memory so far."""
        self.unchecked = self.live is None and not self.per_sequence
        """Whether the method has declared nothing that could be broken."""
        self.fixed: list[Groups] | None = None
        """The groups of every layer of a static method."""
        if isinstance(method, Static):
            self.fixed = self._plan(method)
        self.bypasses = type(method).bypass is not Method.bypass
        view.head = method.head
        self.awake: Slots | None = None
        """Slots of the tokens that have not exited; None for all."""
        self.rows: Slots = NOBODY
        self._groups: dict[int, Groups] = {}
        """Groups of each layer that follow from what a per-sequence method has answered for these rows."""

    def _plan(self, method: Static) -> list[Groups]:
        """The groups of every layer of a static method.

        Raises:
            MethodError: there is not one action per layer, an action is none of a layer, or a layer runs that is not
                among the live ones.
        """
        name, depth = type(method).__name__, self.view.depth
        codes, fault = [int(code) for code in method.actions(depth)], ""
        for layer, code in enumerate(codes):
            if code and code not in _PARTS:
                fault = f": actions() gave {code} for layer {layer}; SKIP (0), ATTN (1), MLP (2) or RUN (3) is wanted"
            elif code and self.live is not None and layer not in self.live:
                fault = f" runs layer {layer}, which its layers() leaves out"
        if len(codes) != depth:
            fault = f": actions() gave {len(codes)} for {depth} layers; one each is wanted"
        if fault:
            raise MethodError(f"method {name}{fault} ({self._where('actions')})")
        return [[(code, None)] if code else [] for code in codes]

    def begin(self, cache: RowCache, ledger: Ledger) -> None:
        self.cache, self.ledger = cache, ledger
        rows: Slots = cache.order[: cache.alive].copy()
        if not np.array_equal(rows, self.rows):
            self._groups = {}
        self.rows = rows
        self.awake = None
        self.scale = None
        # a per-sequence method is asked at two steps, so that a changed answer is found, then no more
        self.settled = self.per_sequence and self.only_codes and int(cache.steps.min()) >= 2
        self._known: list[tuple[Slots, Tensor]] = []
        self.known = self._known
        self.view.attach(self.rows, cache, ledger)

    def ran(self, slots: Slots | None, hidden: Tensor) -> None:
        self.view.ran(slots, hidden)

    def bypass(self, layer: int) -> nn.Module | None:
        return self.method.bypass(layer)

    def bypass_failed(self, layer: int, error: Exception) -> Exception:
        where = f"in the module of bypass({layer})"
        return plugin_code.failure(self.method, error, where, self._where("bypass"))

    def decide(self, layer: int, hidden: Tensor) -> Groups:
        if self.fixed is not None:
            return self.fixed[layer]
        if self.settled and layer in self._groups:
            return self._groups[layer]
        groups = self._ask(layer, hidden)
        if not self.unchecked:
            self._check(layer, groups)
        if self.settled:
            self._groups[layer] = groups
        return groups

    def _ask(self, layer: int, hidden: Tensor) -> Groups:
        if self.awake is not None and not len(self.awake):
            return []
        if self.settled and (codes := self.view.promised[layer, self.rows]).min() >= 0:
            return self._grouped(codes)
        self.view.arrive(layer, hidden, self.awake)
        answer = decisions.ask(self.method, self.view, metered=self.ledger.metered)
        if isinstance(answer, int):
            self.scale = None
            self._only_exits(answer)
            return [(answer, self.awake)] if answer else []
        rows = self.rows if self.awake is None else self.rows[self.awake]
        if answer.flops:
            self.ledger.router(rows, answer.flops)
        self.only_codes = self.only_codes and answer.scale is None and answer.memory is None
        if answer.memory is not None:
            self._remember(rows, answer.memory)
        self.scale = None if answer.scale is None else self._spread(answer.scale)
        codes = answer.codes
        self._only_exits(codes)
        if isinstance(codes, int):
            if codes == _EXIT:
                self._exit(np.ones(len(rows), dtype=bool))
                return []
            return [(codes, self.awake)] if codes else []
        awake = self.awake
        if (exiting := codes == _EXIT).any():
            self._exit(exiting)
        return self._grouped(codes, awake)

    def _grouped(self, codes: Slots, slots: Slots | None = None) -> Groups:
        """Group slots by their codes, one per slot; `slots` None are all living ones."""
        first = int(codes[0])
        if first in _PARTS and (codes == first).all():
            return [(first, slots)]
        slots = np.arange(self.cache.alive) if slots is None else slots
        return [(part, slots[those]) for part in _PARTS if (those := codes == part).any()]

    def _exit(self, exiting: Flags) -> None:
        """Let some of the awake tokens exit; logits that the method looked at need not be computed again."""
        slots = np.arange(self.cache.alive) if self.awake is None else self.awake
        self.awake = slots[~exiting]
        if (logits := self.view.looked) is not None:
            self._known.append((slots[exiting], logits[on(exiting, logits.device)]))

    def _spread(self, scale: Tensor) -> Tensor:
        """Extend the scale of the awake tokens to all living rows, with 1 for the others: [alive]."""
        if self.awake is None:
            return scale
        return scale.new_ones(self.cache.alive).index_copy(0, on(self.awake, scale.device), scale)

    def _remember(self, rows: Slots, memory: Tensor) -> None:
        """Store what these rows remember."""
        view = self.view
        if view.remembered is None or view.remembered.shape[1] != memory.shape[1]:
            view.remembered = memory.new_zeros(len(view.keys), memory.shape[1])
        view.remembered[on(rows, memory.device)] = memory

    def begin_texts(self, prompt: PromptStates, ledger: Ledger) -> None:
        """Ask the method for the first memory of each sequence.

        Raises:
            DlbenchError: the method fails.
        """
        try:
            memory, flops = counted(lambda: self.method.begin(prompt), metered=ledger.metered)
        except DlbenchError:
            raise
        except (Exception, SystemExit) as error:
            raise plugin_code.failure(self.method, error, "in begin()") from error
        if memory is None:
            return
        if memory.ndim != 2 or len(memory) != prompt.count:
            raise MethodError(
                f"method {type(self.method).__name__}: begin() gave a tensor of shape {tuple(memory.shape)} for "
                f"{prompt.count} prompts; one row per prompt is wanted ({self._where('begin')})"
            )
        self.view.remembered = memory
        if flops:
            ledger.router(np.arange(prompt.count), flops)

    def _where(self, name: str) -> str:
        """File and line of what the method defines."""
        return plugin_code.place(type(self.method), name)

    def passing(self, groups: Groups) -> Slots:
        if any(slots is None for _, slots in groups):
            return NOBODY
        there = np.zeros(self.cache.alive, dtype=bool)
        there[slice(None) if self.awake is None else self.awake] = True
        for _, slots in groups:
            there[slots] = False
        return np.flatnonzero(there)

    def _only_exits(self, answer: int | Slots) -> None:
        """Raise if an answer skips a layer under a KV policy that does not allow it."""
        if self.kv_policy is None or self.kv_policy.allows_skips:
            return
        if not set(np.unique(answer).tolist()) <= {int(Action.RUN), int(Action.EXIT)}:
            name, policy = type(self.method).__name__, self.kv_policy.name
            raise MethodError(
                f"method {name} skipped a layer; kv policy {policy} is for methods that exit ({self._where('route')})"
            )

    def _check(self, layer: int, groups: Groups) -> None:
        """Check an answer against the declared scope and live layers, which decide where keys and values are kept.

        Raises:
            DlbenchError: a per-sequence method changed its answer, or a layer runs that is not among the live ones.
        """
        name = type(self.method).__name__
        if self.live is not None and layer not in self.live and groups:
            raise MethodError(f"method {name} ran layer {layer}, which its live() leaves out ({self._where('live')})")
        if not self.per_sequence:
            return
        now = np.zeros(self.cache.alive, dtype=np.int8)
        for code, slots in groups:
            now[slice(None) if slots is None else slots] = code
        before = self.view.promised[layer, self.rows]
        if ((before >= 0) & (before != now)).any():
            raise MethodError(
                f"method {name} has scope {self.method.scope!r} but changed its answer at layer {layer} within a "
                f"sequence; its scope is 'token' ({self._where('scope')})"
            )
        self.view.promised[layer, self.rows] = now
