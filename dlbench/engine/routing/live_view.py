"""The engine's `View`: what a method sees of the present forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlbench.engine import keyed_rng
from dlbench.engine.flops.ledger import Ledger
from dlbench.engine.flops.op_counter import TensorWork, counted
from dlbench.engine.kv.row_cache import RowCache
from dlbench.engine.kv.storage import Slots, on
from dlbench.engine.logits_processors import Processors
from dlbench.errors import DlbenchError, MethodError
from dlbench.method import View
from dlbench.models.backbone import Backbone
from dlbench.models.exit_head import exit_head, finished, raw_head

_PER = {"layer": 0, "token": 1, "sequence": 2}


@final
class LiveView(View):
    """One object per run, moved from layer to layer. Its tokens are those that have not exited ("awake")."""

    def __init__(
        self, backbone: Backbone, seed: int, keys: keyed_rng.Words, limits: NDArray[np.int64], margin: float
    ) -> None:
        """Prepare.

        Args:
            backbone: has the exit head.
            seed: of the noise.
            keys: key of the noise of each row of the wave.
            limits: most new tokens of each row.
            margin: decisions with a smaller margin are noted as near ties.
        """
        self.backbone, self.depth, self.layer, self.margin = backbone, backbone.depth, 0, margin
        self.seed, self.keys, self.limits = seed, keys, limits
        self.near_ties: list[list[tuple[int, float]]] = [[] for _ in keys]
        """Near ties of each row: (decode step, margin)."""
        self.promised = np.full((self.depth, len(keys)), -1, dtype=np.int8)
        """First answer of a per-sequence method, per layer and row: the code, 0 to skip, -1 not asked yet."""
        self.work: TensorWork | None = None
        self.remembered: Tensor | None = None
        """The memory of each row of the wave (`Route.memory`): [rows, m]."""
        self.ahead: Sequence[Tensor] = ()
        """For methods with `uses_future`: the present tokens' states at full depth, depth + 1 times [alive, width]."""
        self.processors: Processors | None = None
        """Logits processors of the model's generation_config; None for none."""
        self.head: Callable[[int], nn.Module | None] = lambda layer: None
        """The method's own exit heads."""
        self.looked: Tensor | None = None
        """Logits before the present layer, without the soft cap, if the method asked for them: [n, vocabulary]."""
        self.trail: list[tuple[Slots | None, Tensor]] = []
        """Slots that ran a layer in the present forward, and the states that entered, in order; `before` takes them."""
        self._foreseen: dict[int, tuple[Slots | None, Tensor]] = {}
        """What was foreseen from the states before a layer, in the present forward, and for which slots."""
        self._before: Tensor | None = None
        """The state that entered the last layer that each row ran, of what `before` has taken from the trail."""
        self._routed = True
        self._steps: Slots = np.zeros(0, dtype=np.int64)
        self._noise: dict[tuple[int, int], NDArray[np.float64]] = {}
        self._per_sequence: dict[int, NDArray[np.float64]] = {}

    def at_steps(self, steps: Slots) -> None:
        """Set the decode step of each living row; a view without steps is one of a routed prompt."""
        self._steps, self._routed = steps, False

    def attach(self, rows: Slots, cache: RowCache, ledger: Ledger) -> None:
        """Start a forward of these rows."""
        self._alive, self._cache, self._ledger = rows, cache, ledger
        if self._routed:
            self._steps = np.full(len(rows), -1, dtype=np.int64)
        self._awake: Slots | None = None
        self.trail, self._before = [], None
        self._noise.clear()
        self._foreseen.clear()

    def arrive(self, layer: int, hidden: Tensor, awake: Slots | None) -> None:
        """Set the current layer, its input [alive, positions, width], and the slots that have not exited."""
        self.layer, self._state, self._awake, self.looked = layer, hidden, awake, None
        if layer == 0:
            self._embedded = hidden

    def ran(self, slots: Slots | None, hidden: Tensor) -> None:
        """Note which slots, or all, ran the current layer, and the states that entered it."""
        if not self._routed:  # states of whole prompts are large, and are shown to nobody
            self.trail.append((slots, hidden))

    @property
    def count(self) -> int:
        """Tokens of the view."""
        return len(self._rows())

    def _rows(self) -> Slots:
        return self._of(self._alive)

    def _of(self, x: Slots) -> Slots:
        """The awake entries of an array [alive]."""
        return x if self._awake is None else x[self._awake]

    def _pick(self, x: Tensor) -> Tensor:
        """A copy of the awake rows of [alive, 1, width]."""
        self._check_shown()
        awake = self._awake
        return x[:, 0].clone() if awake is None else x[on(awake, x.device), 0]

    def _check_shown(self) -> None:
        if self._routed:
            raise DlbenchError("a routed prompt shows no states: a method that reads them works per token")

    @property
    def hidden(self) -> Tensor:
        return self._pick(self._state)

    @property
    def embedded(self) -> Tensor:
        return self._pick(self._embedded)

    @property
    def before(self) -> Tensor | None:
        self._check_shown()
        trail, self.trail = self.trail, []
        whole = [place for place, (slots, _) in enumerate(trail) if slots is None]
        for slots, hidden in trail[whole[-1] if whole else 0 :]:
            if slots is None:
                self._before = hidden
            else:
                index = on(slots, hidden.device)
                known = torch.zeros_like(self._state) if self._before is None else self._before
                self._before = known.index_copy(0, index, hidden[index])
        return None if self._before is None else self._pick(self._before)

    @property
    def row(self) -> Tensor:
        return torch.from_numpy(self._rows().copy())

    @property
    def step(self) -> Tensor:
        return torch.from_numpy(self._of(self._steps).copy())

    @property
    def position(self) -> Tensor:
        starts = self._cache.starts[: len(self._alive)]
        return torch.from_numpy(self._cache.seen - self._of(starts))

    @property
    def limit(self) -> Tensor:
        return torch.from_numpy(self.limits[self._rows()])

    @property
    def memory(self) -> Tensor | None:
        if self.remembered is None:
            return None
        return self.remembered[on(self._rows(), self.remembered.device)]

    def logits(self) -> Tensor:
        if self.looked is None:
            own, flops = self.head(self.layer), None
            with self._uncounted():
                if own is None:
                    looked = raw_head(self.backbone, self.hidden)
                else:
                    looked, flops = counted(partial(self._own_logits, own), metered=self._ledger.metered)
            self._ledger.exit_head(self._rows(), flops)
            self.looked = looked
        return finished(self.backbone, self.looked.clone())

    def _own_logits(self, head: nn.Module) -> Tensor:
        """Logits of the method's own exit head on the states.

        Raises:
            MethodError: they are not as many as the model's.
        """
        logits: Tensor = head(self.hidden.float())
        wanted = self.count, self.backbone.vocabulary
        if logits.shape != wanted:
            raise MethodError(
                f"the exit head that head({self.layer}) returns gives logits of shape {tuple(logits.shape)}; one per "
                f"token of the vocabulary is wanted: {wanted}"
            )
        return logits

    def foreseen(self, layer: int) -> Tensor:
        if not self.ahead:
            raise DlbenchError("a method that asks for what is to come says so: uses_future = True, deployable = False")
        awake = self._awake
        slots, known = self._foreseen.get(layer, (awake, None))
        if known is None or slots is not awake:
            x = self.ahead[layer] if awake is None else self.ahead[layer][on(awake, self._state.device)]
            known = self._likeliest(x)
            self._foreseen[layer] = awake, known
        return known.clone()

    def _likeliest(self, states: Tensor) -> Tensor:
        """The token that the exit head finds likeliest from each awake token's state: [n, width] -> [n]."""
        with self._uncounted():
            scores = exit_head(self.backbone, states)
            if self.processors is not None:  # the first token was written before the first step
                scores = self.processors(scores, self._rows(), self._of(self._steps) + 1)
            return scores.argmax(-1)

    @contextmanager
    def _uncounted(self) -> Iterator[None]:
        """Pause the counter: what the engine computes for a method is charged by the engine, or not at all."""
        if self.work is None:
            yield
            return
        self.work.paused = True
        try:
            yield
        finally:
            self.work.paused = False

    def uniform(self, count: int = 1, per: Literal["layer", "token", "sequence"] = "layer") -> Tensor:
        rows = self._rows()
        if per == "sequence":  # once per run
            if count not in self._per_sequence:
                self._per_sequence[count] = keyed_rng.uniform(self.keys, count, self.seed, _PER[per])
            return torch.from_numpy(self._per_sequence[count][rows])
        if (_PER[per], count) not in self._noise:  # once per step, however many layers ask
            self._noise[_PER[per], count] = self._draw(count, per)
        drawn = self._noise[_PER[per], count]
        if per == "layer":
            drawn = drawn[self.layer]
        return torch.from_numpy(drawn.copy() if self._awake is None else drawn[self._awake])

    def _draw(self, count: int, per: Literal["layer", "token"]) -> NDArray[np.float64]:
        """Noise of all living rows in this step: [alive, count] per token, [depth, alive, count] per layer."""
        keys, steps = self.keys[self._alive], self._steps
        if per == "token":
            return keyed_rng.uniform(keys, count, self.seed, _PER[per], steps)
        alive = len(keys)
        layers = np.repeat(np.arange(self.depth), alive)
        at = _PER[per], np.tile(steps, self.depth), layers
        return keyed_rng.uniform(np.tile(keys, self.depth), count, self.seed, *at).reshape(self.depth, alive, count)

    def at_least(self, score: Tensor, threshold: float | Tensor) -> Tensor:
        if isinstance(threshold, Tensor):
            threshold = threshold.to(score.device)
        margin = (score - threshold).abs()
        close = ~(margin >= self.margin)  # a margin that is not a number too
        if bool(close.any()):
            if bool(score.isnan().any()):
                raise MethodError(
                    f"at_least() got a score that is not a number before layer {self.layer}; look for a division by "
                    "zero, or the logarithm of zero, in what the score is computed from"
                )
            rows, steps = self._rows(), self._of(self._steps)
            for i in close.nonzero()[:, 0].tolist():
                self.near_ties[rows[i]].append((int(steps[i]), float(margin[i])))
        return score >= threshold
