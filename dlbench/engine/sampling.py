"""Choose tokens: the argmax of scores with its margin, and the noise that makes an argmax a sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dlbench.engine import keyed_rng
from dlbench.engine.kv.storage import Slots

_SAMPLING = 0x5A
"""Separates the noise of sampling from a method's."""


def gumbel(keys: keyed_rng.Words, like: Tensor, seed: int, stream: int, steps: Slots) -> Tensor:
    """Gumbel noise of the shape, dtype and device of `like` [rows, n]: scores plus noise have a sample as argmax.

    Args:
        keys: of the rows.
        like: the scores.
        seed: of the sampling.
        stream: samples of different streams are independent.
        steps: of each row's next token.
    """
    u = keyed_rng.uniform(keys, like.shape[1], _SAMPLING, seed, stream, steps)
    return -torch.from_numpy(np.log(-np.log(u + 1e-300) + 1e-300)).to(like)


def argmax_with_margin(scores: Tensor) -> tuple[Tensor, list[float]]:
    """The argmax of each row, the first of equal ones, and its margin over the second highest score.

    Args:
        scores: [rows, n], float32; changed during the call and restored: copying so many numbers would cost more.

    Returns:
        Both on the host: the device is waited for once.
    """
    if scores.is_cpu:  # numpy's argmax takes a fraction of the time
        table = scores.contiguous().numpy()
        places = table.argmax(-1)
        at = np.arange(len(table)), places
        highest = table[at]
        table[at] = -np.inf
        with np.errstate(invalid="ignore"):  # a margin that is not a number is reported by the caller
            margins = (highest - table.max(-1)).tolist()
        table[at] = highest
        return torch.from_numpy(places), margins
    best, indices = scores.max(-1, keepdim=True)
    second = scores.scatter_(1, indices, -torch.inf).amax(-1)
    scores.scatter_(1, indices, best)
    both = torch.stack((indices[:, 0].double(), (best[:, 0] - second).double())).cpu()
    return both[0].long(), both[1].tolist()
