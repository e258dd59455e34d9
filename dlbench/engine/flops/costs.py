"""What one token costs on a backbone, in FLOPs.

Conventions are those of torch's own counter: a matrix product of [m, k] and [k, n] costs 2·m·k·n, everything else is
free, and causal attention over a prompt counts the full square. Of a mixture of experts, those that a token uses count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlbench.models.attention import windows
from dlbench.models.backbone import Backbone
from dlbench.models.experts import experts_of
from dlbench.models.families import resolve

CATEGORIES = ("layers", "attention", "heads", "kv", "router")
Ints = NDArray[np.int64]


def linear_flops(module: nn.Module | None) -> int:
    """FLOPs of all linear maps inside a module, per token."""
    if module is None:
        return 0
    return sum(2 * m.weight.numel() for m in module.modules() if isinstance(m, (nn.Linear, Conv1D)))


def _whole_layer(backbone: Backbone, index: int) -> tuple[int, int]:
    """Linear FLOPs of a layer per token, and those that its modules compute."""
    layer, experts = backbone.layers[index], experts_of(backbone, index)
    flops = linear_flops(layer)
    if experts is None:
        return flops, flops
    flops -= linear_flops(resolve(layer, backbone.family.mlp[0]))
    return flops + experts.flops, flops + experts.executed


class Costs:
    """FLOPs per token on a backbone, by part of the model."""

    def __init__(self, backbone: Backbone) -> None:
        config, family, model = backbone.model.config, backbone.family, backbone.model
        layers = list(backbone.layers)
        self.windows = windows(config, len(layers))
        self.spans = {w: [i for i, other in enumerate(self.windows) if other == w] for w in set(self.windows)}
        """Window -> the layers that have it."""
        attention = np.array([linear_flops(resolve(layer, family.attention)) for layer in layers], dtype=np.int64)
        credited, executed = zip(*(_whole_layer(backbone, index) for index in range(len(layers))), strict=True)
        self.layer, self.executed_layer = (np.array(of, dtype=np.int64) for of in (credited, executed))
        """Linear FLOPs of a layer and what its modules compute, masked experts included: [depth] each."""
        self.parts, self.executed_parts = (
            np.stack([np.zeros_like(attention), attention, whole - attention, whole])
            for whole in (self.layer, self.executed_layer)
        )
        """The same by Action, from SKIP to RUN, and layer: [4, depth] each."""
        self.shares = self.parts / self.layer
        """Share of each part in its layer's linear FLOPs: so much does a sub-layer count in layer shares."""
        self.fill = np.array(
            [sum(linear_flops(resolve(layer, path)) for path in family.fill) for layer in layers], dtype=np.int64
        )  # [depth]
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.attention_per_key = 4 * heads * width  # scores and weighted sum, per layer
        self.head = sum(linear_flops(resolve(model, path)) for path in family.head)
        self.input = sum(linear_flops(resolve(model, path)) for path in family.inputs)
        self.vocabulary = linear_flops(resolve(model, family.head[-1]))
        """The LM head alone, which stock models run for the last position of a prompt only."""

    def dense(self, prompt: int, generated: int) -> int:
        """Decode FLOPs of full depth for `generated` tokens after a prompt of `prompt` tokens."""
        forwards = max(generated - 1, 0)
        context = prompt + 1 + np.arange(forwards)
        keys = sum(int((context if w is None else np.minimum(context, w)).sum()) for w in self.windows)
        linear = int(self.layer.sum()) + self.head + self.input
        return int(forwards * linear + self.attention_per_key * keys)
