"""Weight-only int8 of the decoder layers, by torchao: their linear maps keep int8 weights with a scale per output.

Embedding, norms and the LM head stay as they are, and activations keep the dtype that the model was loaded in. It saves
memory; outside of a compiler each product first turns its weights back into that dtype, so it saves no time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlbench.errors import DlbenchError
from dlbench.terminal.quiet import quiet_torchao


def torchao() -> Any:
    """The module of torchao that quantises.

    Raises:
        DlbenchError: it is not installed, or does not work with this torch.
    """
    try:
        with quiet_torchao():
            from torchao import quantization
    except Exception as error:
        reason = "torchao is not installed" if isinstance(error, ModuleNotFoundError) else f"torchao fails: {error}"
        raise DlbenchError(f"dtype int8: {reason}; pip install 'dlbench[int8]'") from error
    return quantization


@torch.no_grad()
def to_int8(layers: nn.ModuleList) -> None:
    """Quantise every linear map of these layers in place; GPT-2's and Falcon's own kinds become plain ones first."""
    from transformers.models.falcon.modeling_falcon import FalconLinear

    found = torchao()
    for parent in list(layers.modules()):
        for name, child in parent.named_children():
            if isinstance(child, (Conv1D, FalconLinear)):
                setattr(parent, name, _plain(child))
    with quiet_torchao():
        found.quantize_(layers, found.Int8WeightOnlyConfig(set_inductor_config=False))


def _plain(module: Conv1D | nn.Linear) -> nn.Linear:
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight  # [outputs, inputs]
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=module.bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias, requires_grad=False)
    return linear.train(module.training)
