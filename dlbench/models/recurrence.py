"""The sizes of a recurrent module: what its state takes, and what one token costs beside its linear maps.

Each begins with a causal convolution of every channel by itself. Behind it stands nothing more (`conv`: LFM2), a
selective state space (`mamba`: Jamba; `mamba2`: Falcon-H1), or a gated delta rule (`delta`: Qwen3-Next, Qwen3.5).

Only matrix products and convolutions count, as in torch's own counter. The token's own cost is that of the step from
one state to the next: one output of the convolution per channel, and for Mamba the product of state and C, which reads
the state. The rest of a step is elementwise in transformers, and free. What a kernel computes may be more: a step
convolves twice and drops the first output, a text's beginning is convolved with padding behind it, and Mamba 2 and the
delta rule read it in chunks of a fixed length, by products that grow with the chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dlbench.models.families import Family, recurrent_of

_DELTA_CHUNK = 64
"""Chunk of the delta rule, a default argument in transformers."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Recurrence:
    """Sizes of one layer's recurrent module; those of its state are `heads` × `width` × `size`."""

    kind: Literal["conv", "mamba", "mamba2", "delta"]
    channels: int
    """Of the convolution."""
    kernel: int
    """Of the convolution: so many inputs are kept, too."""
    heads: int = 0
    width: int = 0
    """Values of a head."""
    size: int = 0
    """Size of the state per value."""
    chunk: int = 1
    """Tokens that are read together at the beginning of a text."""

    @property
    def floats(self) -> int:
        """Numbers that one text keeps."""
        return self.channels * self.kernel + self.heads * self.width * self.size

    @property
    def token(self) -> int:
        """FLOPs of one token beside the linear maps."""
        read = 0 if self.kind == "delta" else 2 * self.heads * self.width * self.size
        return 2 * self.channels * self.kernel + read

    @property
    def step(self) -> int:
        """FLOPs that the kernels of one step compute, beside the linear maps."""
        return self.token + 2 * self.channels * self.kernel

    def begun(self, tokens: Ints) -> Ints:
        """FLOPs that the kernels compute for the first tokens of a text, padding included, beside the linear maps."""
        outputs = np.maximum(tokens, self.kernel) + self.kernel - 1
        convolved: Ints = 2 * self.channels * self.kernel * outputs
        chunks, c, d, n = -(-tokens // self.chunk), self.chunk, self.width, self.size
        scan: Ints | int = 0
        if self.kind == "mamba":
            scan = 2 * d * n * tokens
        elif self.kind == "mamba2":  # scores, outputs within a chunk; its state, outputs of the state before it
            scan = chunks * (2 * c * c * (n + d) + 4 * c * d * n) + 2 * (chunks + 1) ** 2 * d * n
        elif self.kind == "delta":  # two kinds of scores, outputs within a chunk; two reads of the state, its update
            scan = chunks * (2 * c * c * (2 * n + d) + 6 * c * d * n)
        return convolved + self.heads * scan


def recurrence_of(family: Family, layer: Any) -> Recurrence | None:
    """The sizes of a layer's recurrent module; None where it has none."""
    module = recurrent_of(family, layer)
    if module is None:
        return None
    conv = module.conv if family.recurrence == "conv" else module.conv1d
    channels, kernel = int(conv.in_channels), int(conv.kernel_size[0])
    if family.recurrence == "mamba":
        return Recurrence("mamba", channels, kernel, 1, module.intermediate_size, module.ssm_state_size)
    if family.recurrence == "mamba2":
        sizes = module.num_heads, module.head_dim, module.ssm_state_size, module.chunk_size
        return Recurrence("mamba2", channels, kernel, *sizes)
    if family.recurrence == "delta":
        sizes = module.num_v_heads, module.head_v_dim, module.head_k_dim, _DELTA_CHUNK
        return Recurrence("delta", channels, kernel, *sizes)
    return Recurrence("conv", channels, kernel)


def leaking_padding(family: Family, layer: Any) -> str:
    """The linear map whose bias would turn padding before a text into a state; empty where there is none.

    transformers sets the padded inputs of a recurrent module to zero, and a projection with a bias makes more of zero.
    """
    module = recurrent_of(family, layer)
    projections = [] if module is None else [(k, m) for k, m in module.named_children() if k.startswith("in_proj")]
    return next((f"{family.recurrent}.{k}" for k, m in projections if getattr(m, "bias", None) is not None), "")
