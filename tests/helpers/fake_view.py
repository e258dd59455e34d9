"""A view made by hand, for what a rule computes from given numbers."""

import numpy as np
import torch

from dlbench.engine import keyed_rng
from dlbench.method import View


class FakeView(View):
    """Shows what it is given; noise is keyed like the engine's. Close calls are kept in `close`."""

    def __init__(self, *, layer=1, depth=8, step=0, rows=1, seed=0, **shown):
        self.layer, self.depth, self._step, self.seed = layer, depth, step, seed
        self.rows, self.shown, self.close = rows, shown, []

    @property
    def hidden(self):
        return self.shown["hidden"]

    @property
    def before(self):
        return self.shown["before"]

    @property
    def embedded(self):
        return self.shown["embedded"]

    @property
    def row(self):
        return torch.arange(self.rows)

    @property
    def step(self):
        return torch.full((self.rows,), self._step)

    @property
    def position(self):
        return self.shown["position"]

    @property
    def limit(self):
        return torch.as_tensor(self.shown.get("limit", [10] * self.rows))

    @property
    def memory(self):
        return self.shown.get("memory")

    def foreseen(self, layer):
        return self.shown["foreseen"][layer]

    def logits(self):
        return self.shown["logits"]

    def uniform(self, count=1, per="layer"):
        kind = {"layer": (0, self._step, self.layer), "token": (1, self._step), "sequence": (2,)}[per]
        keys = np.array([keyed_rng.key_of(str(row)) for row in range(self.rows)], dtype=np.uint64)
        return torch.from_numpy(keyed_rng.uniform(keys, count, self.seed, *kind))

    def at_least(self, score, threshold):
        self.close.append((score - threshold).abs().min())
        return score >= threshold
