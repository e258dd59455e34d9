"""Checkpoints whose weights are stored quantised, and that transformers loads as such."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.models.recognition.linear_maps import is_linear
from dlbench.system.paths import brief

_LONGEST = 80


def settings_of(config: Any) -> Mapping[str, Any] | None:
    """How a checkpoint is quantised, as its configuration says it; None where it is not."""
    how = getattr(config, "quantization_config", None)
    if how is None:
        return None
    return how if isinstance(how, Mapping) else dict(how.to_dict())


def described(how: Mapping[str, Any]) -> str:
    """Name a scheme in a few words: the method, and its kind or bits, such as "bitsandbytes nf4" or "gptq 4 bit"."""
    method = str(getattr(how.get("quant_method"), "value", how.get("quant_method") or "unknown"))
    return f"{method} {_kind(method, how)}".strip()[:_LONGEST]


def _kind(method: str, how: Mapping[str, Any]) -> str:
    if method.startswith("bitsandbytes"):
        return str(how.get("bnb_4bit_quant_type", "fp4")) if how.get("load_in_4bit") else "int8"
    if method == "torchao":
        kind = how.get("quant_type")
        default = kind.get("default", kind) if isinstance(kind, Mapping) else kind
        named = default.get("_type", "") if isinstance(default, Mapping) else default
        return (named if isinstance(named, str) else type(named).__name__).removesuffix("Config")
    if method == "compressed-tensors":
        return str(how.get("format") or "")
    bits = how.get("bits") or how.get("w_bit") or how.get("nbits")
    return f"{bits} bit" if bits else str(how.get("fmt") or "")


def check_linear(name: str, model: Any, how: Mapping[str, Any]) -> None:
    """Check that a quantised model's linear maps have the sizes of the plain model, and say so.

    Where a class hides how large a map is, its FLOPs could not be counted.

    Args:
        name: the model's, for the message.
        model: as transformers loaded it.
        how: how it is quantised.

    Raises:
        DlbenchError: one of them is not.
    """
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    for path, module in bare.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        loaded = model.get_submodule(path)
        sizes = getattr(loaded, "in_features", None), getattr(loaded, "out_features", None)
        if not is_linear(loaded) or sizes != (module.in_features, module.out_features):
            raise DlbenchError(
                f"model {brief(name)!r} is quantised by {described(how)}, whose {type(loaded).__name__} ({path}) hides "
                "its size, so that FLOPs cannot be counted: give the plain model, or one quantised otherwise"
            )
