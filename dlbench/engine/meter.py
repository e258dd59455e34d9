"""Count what ran, twice: executed FLOPs (what the kernels did, padding included) and credited FLOPs (true context).

Conventions, those of torch's own counter: a matrix product of [m, k] and [k, n] costs 2·m·k·n, nothing else costs
anything, and causal attention over a prompt counts the full square. Credited FLOPs equal executed ones at batch 1
without padding; a gap that grows with anything but padding is a bug or a masked fake.
"""

from __future__ import annotations

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
    """What each alive row brings to one forward."""

    def __init__(
        self, tokens: Ints, keys: Ints, columns: int, padded_keys: int, read: int | Ints = 1, padded_read: int = 1
    ) -> None:
        self.tokens = tokens
        """True tokens of each row."""
        self.keys = keys
        """Query-key pairs of each row over its true context."""
        self.columns = columns
        """Tokens per row as executed, padding included."""
        self.padded_keys = padded_keys
        """Query-key pairs per row as executed."""
        self.read = read
        """Positions of each row whose logits are wanted."""
        self.padded_read = padded_read
        """Positions per row whose logits are made."""

    def pairs(self, window: int | None) -> tuple[Ints, int]:
        """Query-key pairs in a layer: true ones per row, executed ones per row. Prompts run the full square."""
        if window is None or self.columns > 1:
            return self.keys, self.padded_keys
        return np.minimum(self.keys, window), min(self.padded_keys, window)


class Costs:
    """What one token costs on a backbone, by part."""

    def __init__(self, backbone: Backbone) -> None:
        config, family, model = backbone.model.config, backbone.family, backbone.model
        layers = list(backbone.layers)
        self.windows = windows(config, len(layers))
        self.layer = np.array([linear_flops(layer) for layer in layers], dtype=np.int64)  # [depth]
        attention = [linear_flops(resolve(layer, family.attention)) for layer in layers]
        self.parts = {
            int(Action.ATTN): np.array(attention, dtype=np.int64),
            int(Action.MLP): self.layer - np.array(attention, dtype=np.int64),
            int(Action.RUN): self.layer,
        }
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
        self._whole: list[int] = []

    def whole_layer(self, index: int) -> None:
        """Every row runs the whole layer."""
        self._whole.append(index)

    def layer(self, index: int, part: int, slots: Ints | None) -> None:
        """Some rows, or all, run a layer or half of it."""
        if slots is None and part == Action.RUN:
            self._whole.append(index)
            return
        rows = self.rows if slots is None else self.rows[slots]
        self._codes[rows, index] = part
        linear = int(self.costs.parts[part][index])
        self.calls[rows] += linear / self.costs.layer[index]
        if not self.metered:
            return
        tokens = self.traffic.tokens if slots is None else self.traffic.tokens[slots]
        self._charge("layers", rows, linear * tokens, linear * self.traffic.columns)
        if part & Action.ATTN:
            keys, padded = self.traffic.pairs(self.costs.windows[index])
            per_key = self.costs.attention_per_key
            self._charge("attention", rows, per_key * (keys if slots is None else keys[slots]), per_key * padded)

    def past_layer(self, index: int, slots: Ints, context: Ints, padded: int) -> None:
        """Past tokens, one per entry of `slots`, run a layer over their context of that time."""
        rows, window = self.rows[slots], self.costs.windows[index]
        np.add.at(self.calls, rows, 1.0)
        linear, per_key = int(self.costs.layer[index]), self.costs.attention_per_key
        keys = context if window is None else np.minimum(context, window)
        self._charge("kv", rows, linear + per_key * keys, linear + per_key * padded, repeated=True)

    def fill(self, index: int, slots: Ints) -> None:
        """Keys and values of past tokens are made, one per entry of `slots`."""
        flops = np.full(len(slots), int(self.costs.fill[index]), dtype=np.int64)
        self._charge("kv", self.rows[slots], flops, flops, repeated=True)

    def router(self, rows: Ints, flops: int) -> None:
        """The method's own products for these rows; what they share is spread over them, to the last FLOP."""
        each = (flops + np.arange(len(rows))) // len(rows)
        self._charge("router", rows, each, each)

    def exit_head(self, rows: Ints) -> None:
        """A method looks at these rows' logits."""
        self._charge("heads", rows, self.costs.head, self.costs.head)

    def finish(self) -> None:
        """The forward has ended with the logits that were wanted, mostly of the last position alone."""
        self.calls[self.rows] += len(self._whole)
        self._codes[self.rows[:, None], self._whole] = int(Action.RUN)
        if not self.metered:
            return
        tokens, columns = self.traffic.tokens, self.traffic.columns
        linear = int(self.costs.layer[self._whole].sum())
        self._charge("layers", self.rows, linear * tokens, linear * columns)
        for window in set(self.costs.windows):
            times = sum(self.costs.windows[i] == window for i in self._whole) * self.costs.attention_per_key
            keys, padded = self.traffic.pairs(window)
            self._charge("attention", self.rows, times * keys, times * padded)
        # projections around the stack run at every position, the LM head where logits are wanted
        fixed = self.costs.input + self.costs.head - self.costs.vocabulary
        read, padded = self.costs.vocabulary * self.traffic.read, self.costs.vocabulary * self.traffic.padded_read
        self._charge("heads", self.rows, fixed * tokens + read, fixed * columns + padded)

    def close_step(self) -> None:
        """End one decode forward."""
        for row in self.rows.tolist():
            self.depths[row].append(float(self.calls[row]))
            route, runs = self._codes[row].tobytes(), self.routes[row]
            if runs and runs[-1][0] == route:
                runs[-1] = route, runs[-1][1] + 1
            else:
                runs.append((route, 1))
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
