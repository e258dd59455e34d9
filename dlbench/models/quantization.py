"""Weight-only int8 of the decoder layers with torchao: linear maps have int8 weights with one scale per output.

Embedding, norms and LM head are not quantised, and activations keep the dtype that the model was loaded in. This saves
memory but no time: without a compiler each product first converts its weights back to that dtype. Experts that
transformers keeps in one parameter are no linear maps, and stay as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from dlbench.errors import DlbenchError
from dlbench.terminal.quiet import quiet_torchao


def torchao() -> Any:
    """Import `torchao.quantization`.

    Raises:
        DlbenchError: torchao is not installed, or does not work with this torch.
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
    """Quantise every linear map of these layers in place; the linear classes of GPT-2 and Falcon become nn.Linear."""
    from transformers.models.falcon.modeling_falcon import FalconLinear

    quantization = torchao()
    for parent in list(layers.modules()):
        for name, child in parent.named_children():
            if isinstance(child, (Conv1D, FalconLinear)):
                setattr(parent, name, _plain(child))
    with quiet_torchao():
        quantization.quantize_(layers, quantization.Int8WeightOnlyConfig(set_inductor_config=False))


def plain_share(layers: nn.ModuleList) -> float:
    """Share of the weights of these layers' matrices that are not quantised, such as those of experts, in [0, 1]."""
    matrices = [p for p in layers.parameters() if p.ndim > 1]
    return sum(p.numel() for p in matrices if type(p.data) is torch.Tensor) / sum(p.numel() for p in matrices)


def _plain(module: Conv1D | nn.Linear) -> nn.Linear:
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight  # [outputs, inputs]
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=module.bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias, requires_grad=False)
    return linear.train(module.training)
