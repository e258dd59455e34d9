"""Checkpoints whose weights are stored quantised, and that transformers loads as such."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
