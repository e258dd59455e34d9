"""Count what ran, twice: executed FLOPs (what the kernels did, padding included) and credited FLOPs (true context).

Conventions, those of torch's own counter: a matrix product of [m, k] and [k, n] costs 2·m·k·n, nothing else costs
anything, and causal attention over a prompt counts the full square. Credited FLOPs equal executed ones at batch 1
without padding; a gap that grows with anything but padding is a bug or a masked fake.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlbench.backbones import Backbone
from dlbench.engine.cache import windows
from dlbench.families import resolve
from dlbench.method import Action

CATEGORIES = ("layers", "attention", "heads", "kv", "router")
Ints = NDArray[np.int64]


def linear_flops(module: nn.Module | None) -> int:
    """FLOPs of all linear maps inside a module, per token."""
    if module is None:
        return 0
    return sum(2 * m.weight.numel() for m in module.modules() if isinstance(m, (nn.Linear, Conv1D)))


class Traffic:
    """What each living row brings to one forward."""

    def __init__(self, tokens: Ints, past: Ints, columns: int, padded_past: int) -> None:
        self.tokens = tokens
        """True tokens of each row."""
        self.past = past
        """True tokens before them, of each row."""
        self.columns = columns
        """Tokens per row as executed, padding included."""
        self.padded_past = padded_past
        """Tokens before them per row, as executed."""

    def pairs(self, window: int | None) -> tuple[Ints, int]:
        """Query-key pairs in a layer: true ones per row, executed ones per row. Several tokens run the full square."""
        past, padded = self.past, self.padded_past
        if window is not None:
            past, padded = np.minimum(past, window - 1), min(padded, window - 1)
        return self.tokens * (past + self.tokens), self.columns * (padded + self.columns)


class Costs:
    """What one token costs on a backbone, by part."""

    def __init__(self, backbone: Backbone) -> None:
        config, family, model = backbone.model.config, backbone.family, backbone.model
        layers = list(backbone.layers)
        self.windows = windows(config, len(layers))
        self.spans = {w: [i for i, other in enumerate(self.windows) if other == w] for w in set(self.windows)}
        """The layers of each window."""
        self.layer = np.array([linear_flops(layer) for layer in layers], dtype=np.int64)  # [depth]
        attention = np.array([linear_flops(resolve(layer, family.attention)) for layer in layers], dtype=np.int64)
        mlp, nothing = self.layer - attention, np.zeros_like(attention)
        self.parts = np.stack([nothing, attention, mlp, self.layer])
        """By Action, from SKIP to RUN, and layer."""
        self.fill = np.array(
            [sum(linear_flops(resolve(layer, path)) for path in family.fill) for layer in layers], dtype=np.int64
        )  # [depth]
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.attention_per_key = 4 * heads * width  # scores and weighted sum, per layer
        self.head = sum(linear_flops(resolve(model, path)) for path in family.head)
        self.input = sum(linear_flops(resolve(model, path)) for path in family.inputs)
        self.vocabulary = linear_flops(resolve(model, family.head[-1]))
        """The LM head alone, which stock models run on the last position of a prompt only."""

    def dense(self, prompt: int, generated: int) -> int:
        """Decode FLOPs of full depth for `generated` tokens after a prompt of `prompt` tokens."""
        forwards = max(generated - 1, 0)
        context = prompt + 1 + np.arange(forwards)
        keys = sum(int((context if w is None else np.minimum(context, w)).sum()) for w in self.windows)
        linear = int(self.layer.sum()) + self.head + self.input
        return int(forwards * linear + self.attention_per_key * keys)


class Ledger:
    """Counts per row of a wave. Between `begin` and `finish` slots are those of the forward under way."""

    def __init__(self, costs: Costs, rows: int, metered: bool = True) -> None:
        self.costs, self.metered = costs, metered
        self.flops: dict[str, Ints] = {c: np.zeros(rows, dtype=np.int64) for c in CATEGORIES}
        self.executed: Ints = np.zeros(rows, dtype=np.int64)
        self.calls = np.zeros(rows)
        """Executed layers of the forward under way; half a layer counts by its share of the layer's linear FLOPs."""
        self.depths: list[list[float]] = [[] for _ in range(rows)]
        """Executed layers per decode forward."""
        self.routes: list[list[tuple[bytes, int]]] = [[] for _ in range(rows)]
        """What each decoded token did, one byte (an Action) per layer, and how many forwards in a row did the same."""
        self._codes = np.zeros((rows, len(costs.layer)), dtype=np.uint8)
        self.acted = False
        """Whether any token ever skipped or exited."""

    def begin(self, rows: Ints, traffic: Traffic) -> None:
        """A forward of these rows starts: slot i is rows[i]."""
        self.rows, self.traffic = rows, traffic
        self._ran = np.zeros((len(self.costs.layer), len(rows)), dtype=np.uint8)
        self._filled: list[tuple[int, Ints]] = []

    def layer(self, index: int, part: int, slots: Ints | None) -> None:
        """Some rows, or all, run a layer or half of it."""
        self._ran[index, slice(None) if slots is None else slots] = part

    def past_layer(self, index: int, slots: Ints, context: Ints, padded: int) -> None:
        """Past tokens, one per entry of `slots`, run a layer over their context of that time."""
        rows, window = self.rows[slots], self.costs.windows[index]
        np.add.at(self.calls, rows, 1.0)
        linear, per_key = int(self.costs.layer[index]), self.costs.attention_per_key
        keys = context if window is None else np.minimum(context, window)
        self._charge("kv", rows, linear + per_key * keys, linear + per_key * padded, repeated=True)

    def fill(self, index: int, slots: Ints) -> None:
        """Keys and values of past tokens are made, one per entry of `slots`."""
        self._filled.append((index, slots))

    def router(self, rows: Ints, flops: int) -> None:
        """The method's own products for these rows; what they share is spread over them, to the last FLOP."""
        each = (flops + np.arange(len(rows))) // len(rows)
        self._charge("router", rows, each, each)

    def exit_head(self, rows: Ints, own: nn.Module | None = None) -> None:
        """A method looks at these rows' logits, through the model's head or one of its own."""
        flops = self.costs.head if own is None else linear_flops(own)
        self._charge("heads", rows, flops, flops)

    def finish(self, known: Ints, keep: int = 1, wanted: Ints | None = None) -> None:
        """The forward has ended with the logits of the last positions.

        Args:
            known: slots whose logits were there already, because the token left where it had been looked at.
            keep: positions whose logits were made, of every row.
            wanted: positions of each row whose logits were wanted; None for those made, as far as they are true tokens.
        """
        tokens, columns, ran = self.traffic.tokens, self.traffic.columns, self._ran
        linear = self.costs.parts[ran, np.arange(len(ran))[:, None]]  # [depth, alive]
        self.calls[self.rows] += tokens * (linear / self.costs.layer[:, None]).sum(0)
        self._codes[self.rows] = np.where(ran.T, ran.T, self._codes[self.rows])
        if not self.metered:
            return
        self._charge("layers", self.rows, linear.sum(0) * tokens, linear.sum(0) * columns)
        attended = ran & int(Action.ATTN) > 0
        for window, layers in self.costs.spans.items():
            times = attended[layers].sum(0) * self.costs.attention_per_key
            keys, padded = self.traffic.pairs(window)
            self._charge("attention", self.rows, times * keys, times * padded)
        if self._filled:
            slots = np.concatenate([slots for _, slots in self._filled])
            flops = np.concatenate([np.full(len(slots), self.costs.fill[index]) for index, slots in self._filled])
            self._charge("kv", self.rows[slots], flops, flops, repeated=True)
        # projections around the stack run at every position, the LM head where logits are wanted
        fixed = self.costs.input + self.costs.head - self.costs.vocabulary
        wanted = np.minimum(tokens, keep) if wanted is None else wanted.copy()
        executed = np.full(len(self.rows), keep, dtype=np.int64)
        wanted[known] = executed[known] = 0
        vocabulary = self.costs.vocabulary
        self._charge("heads", self.rows, fixed * tokens + vocabulary * wanted, fixed * columns + vocabulary * executed)

    def close_step(self, tokens: Sequence[int] | None = None) -> None:
        """End one decode forward, or several that came to the given number of tokens of each living row."""
        for place, row in enumerate(self.rows.tolist()):
            count = 1 if tokens is None else tokens[place]
            self.depths[row] += [round(float(self.calls[row]) / count, 9)] * count
            route, runs = self._codes[row].tobytes(), self.routes[row]
            if runs and runs[-1][0] == route:
                runs[-1] = route, runs[-1][1] + count
            else:
                runs.append((route, count))
        self.calls[:] = 0
        self._codes[:] = 0

    def total(self, row: int) -> dict[str, int]:
        """Credited FLOPs of one row by category."""
        return {c: int(self.flops[c][row]) for c in CATEGORIES}

    def _charge(
        self, category: str, rows: Ints, flops: int | Ints, executed: int | Ints, *, repeated: bool = False
    ) -> None:
        """Add credited and executed FLOPs to rows."""
        if not self.metered:
            return
        if repeated:
            np.add.at(self.flops[category], rows, flops)
            np.add.at(self.executed, rows, executed)
        else:
            self.flops[category][rows] += flops
            self.executed[rows] += executed
