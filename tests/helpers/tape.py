"""Stands in for a GPU's graphs: notes the operators of a work, and repeats them on the same tensors."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map


class Tape(TorchDispatchMode):
    """As a graph does, it keeps every number and shape that the host had decided on when it was recorded."""

    count = 0
    """Works that were recorded."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        new = {}

        def now(x):
            return new.get(id(x), x) if isinstance(x, torch.Tensor) else x

        for func, args, kwargs, out in self.calls:
            found = func(*tree_map(now, args), **tree_map(now, kwargs))
            for old, fresh in zip(tree_flatten(out)[0], tree_flatten(found)[0], strict=True):
                if isinstance(old, torch.Tensor):
                    new[id(old)] = fresh


def record(work):
    """A recorder, as `cuda_graphs.recorder` gives for a GPU; a graph is not run while it is captured."""
    tape = Tape()
    with tape:
        work()
    Tape.count += 1
    return tape.replay
