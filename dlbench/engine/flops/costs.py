"""What one token costs on a backbone, in FLOPs.

Conventions are those of torch's own counter: a matrix product of [m, k] and [k, n] costs 2·m·k·n, everything else is
free, and causal attention over a prompt counts the full square. Of a mixture of experts, those that a token uses count
(`dlbench.models.experts`). `dlbench.models.recurrence` says what a recurrent module's convolution and state cost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dlbench.models.attention import windows
from dlbench.models.backbone import Backbone
from dlbench.models.experts import experts_of
from dlbench.models.families import attention_of, mixers_of, resolve
from dlbench.models.recognition.linear_maps import linear_flops
from dlbench.models.recurrence import recurrence_of

CATEGORIES = ("layers", "attention", "heads", "kv", "router")
Ints = NDArray[np.int64]


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
        config, family, model = backbone.config, backbone.family, backbone.model
        layers = list(backbone.layers)
        self.windows = windows(config, len(layers))
        self.attends = [attention_of(family, layer) is not None for layer in layers]
        """Per layer, whether it has attention; if not, it keeps no keys and values."""
        attending = [i for i, attends in enumerate(self.attends) if attends]
        self.spans = {w: [i for i in attending if self.windows[i] == w] for w in {self.windows[i] for i in attending}}
        """Window -> the layers with attention that have it."""
        self.recurrences = [recurrence_of(family, layer) for layer in layers]
        """Per layer, the sizes of its recurrent module; None where it has none."""
        recurrent = [i for i, recurrence in enumerate(self.recurrences) if recurrence is not None]
        self.states = {
            of: [i for i in recurrent if self.recurrences[i] == of] for of in self.recurrences if of is not None
        }
        """Sizes -> the layers that have a recurrent module of these sizes."""
        token = np.array([0 if of is None else of.token for of in self.recurrences], dtype=np.int64)
        self.expansion_per_key = np.array(
            [sum(linear_flops(resolve(layer, path)) for path in family.expansions) for layer in layers], dtype=np.int64
        )
        """What is spent on each key in every forward, however many tokens attend to it: [depth]."""
        attention = np.array([sum(map(linear_flops, mixers_of(family, layer))) for layer in layers], dtype=np.int64)
        attention += token - self.expansion_per_key
        credited, executed = zip(*(_whole_layer(backbone, index) for index in range(len(layers))), strict=True)
        self.layer, self.executed_layer = (
            np.array(of, dtype=np.int64) + token - self.expansion_per_key for of in (credited, executed)
        )
        """FLOPs per token without those that depend on the context, as needed and, masked experts included, as run."""
        self.parts, self.executed_parts = (
            np.stack([np.zeros_like(attention), attention, whole - attention, whole])
            for whole in (self.layer, self.executed_layer)
        )
        """The same by Action, from SKIP to RUN, and layer: [4, depth] each."""
        self.shares = self.parts / self.layer
        """Share of each part in these FLOPs of its layer: so much does a sub-layer count in layer shares."""
        self.fill = np.array(
            [
                sum(linear_flops(resolve(layer, path)) for path in family.fill) if attends else 0
                for layer, attends in zip(layers, self.attends, strict=True)
            ],
            dtype=np.int64,
        )  # [depth]
        heads = config.num_attention_heads
        if family.key_values:
            per_key = [shape.flops or 2 * heads * (shape.keys + shape.values) for shape in family.key_values]
        else:
            width = getattr(config, "head_dim", None) or config.hidden_size // heads
            per_key = [4 * heads * width] * len(layers)
        self.attention_per_key = np.array(per_key, dtype=np.int64) * self.attends
        """Scores and weighted sum of one token and one key: [depth]."""
        self.head = sum(linear_flops(resolve(model, path)) for path in family.head)
        self.input = sum(linear_flops(resolve(model, path)) for path in family.inputs)
        self.vocabulary = linear_flops(resolve(model, family.head[-1]))
        """The LM head alone, which stock models run for the last position of a prompt only."""

    def per_key(self, layer: int) -> int:
        """What one token alone spends on one key in a layer."""
        return int(self.attention_per_key[layer] + self.expansion_per_key[layer])

    @property
    def every_key(self) -> int:
        """What one token alone spends on one key in all layers."""
        return int((self.attention_per_key + self.expansion_per_key).sum())

    def dense(self, prompt: int, generated: int) -> int:
        """Decode FLOPs of full depth for `generated` tokens after a prompt of `prompt` tokens."""
        forwards = max(generated - 1, 0)
        context = prompt + 1 + np.arange(forwards)
        attention = sum(
            int(per_key) * int((context if w is None else np.minimum(context, w)).sum())
            for w, per_key in zip(self.windows, self.attention_per_key + self.expansion_per_key, strict=True)
        )
        linear = int(self.layer.sum()) + self.head + self.input
        return int(forwards * linear + attention)
