"""Supported families of transformers decoders: one row each, with the paths of their modules.

A family needs only a row if its decoder layers take the hidden state as first argument, write keys and values through
the library's cache, and have attention and feed-forward as modules (or the feed-forward as two linear maps in a row).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Family:
    """Where one family has the modules that the engine needs; paths are dotted attributes."""

    layers: str
    """The list of decoder layers, relative to the model."""
    head: tuple[str, ...]
    """Modules from the last state to logits, in order; a module that is None is left out."""
    attention: str = "self_attn"
    """The attention module of a layer."""
    mlp: tuple[str, ...] = ("mlp",)
    """The feed-forward of a layer: its module, or its first and last linear map where it is written inline."""
    fill: tuple[str, ...] = ("self_attn.k_proj", "self_attn.v_proj")
    """Projections of a layer that compute its keys and values."""
    query: str | None = "self_attn.q_proj"
    """The query projection of a layer; None where one projection computes queries, keys and values."""
    inputs: tuple[str, ...] = ()
    """Projections between the embedding and the first layer."""
    adds_residual: bool = False
    """Whether attention and feed-forward receive the residual and add it themselves."""
    counts_keys: bool = False
    """Whether attention derives a token's position from the number of keys."""
    returns_tuple: bool = False
    """Whether a layer returns (state, attention weights) instead of the state."""
    reads_again: bool = False
    """Whether `generate` prefills the text again at the length where longrope switches its angles."""


_LLAMA = Family(layers="model.layers", head=("model.norm", "lm_head"))
_GPT = Family(
    layers="transformer.h",
    head=("transformer.ln_f", "lm_head"),
    attention="attn",
    fill=("attn.c_attn",),
    query=None,
)
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2", "smollm3"),
        _LLAMA,
    ),
    **dict.fromkeys(
        ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "glm4_moe", "ernie4_5_moe", "gpt_oss"),
        _LLAMA,
    ),
    "granitemoe": replace(_LLAMA, mlp=("block_sparse_moe",)),
    "phi3": replace(_LLAMA, fill=("self_attn.qkv_proj",), query=None, reads_again=True),
    "opt": Family(
        layers="model.decoder.layers",
        head=("model.decoder.final_layer_norm", "model.decoder.project_out", "lm_head"),
        mlp=("fc1", "fc2"),
        inputs=("model.decoder.project_in",),
    ),
    "gpt2": _GPT,
    "gpt_neo": replace(
        _GPT,
        fill=("attn.attention.k_proj", "attn.attention.v_proj"),
        query="attn.attention.q_proj",
        counts_keys=True,
        returns_tuple=True,
    ),
    "gpt_neox": Family(
        layers="gpt_neox.layers",
        head=("gpt_neox.final_layer_norm", "lm_head"),
        attention="attention",
        fill=("attention.query_key_value",),
        query=None,
    ),
    "falcon": replace(
        _GPT,
        attention="self_attention",
        fill=("self_attention.query_key_value",),
        returns_tuple=True,
    ),
    "bloom": replace(
        _GPT,
        attention="self_attention",
        fill=("self_attention.query_key_value",),
        adds_residual=True,
        returns_tuple=True,
    ),
}
"""By transformers' `model_type`."""


def resolve(module: Any, path: str) -> Any:
    """The module at a path of dotted attributes."""
    for name in path.split("."):
        module = getattr(module, name)
    return module


def unsupported(name: str, kind: str) -> str:
    """Message for a model of another type: the supported ones, and how to add one."""
    return (
        f"model {name!r} is of type {kind!r}; supported are {', '.join(sorted(FAMILIES))}. "
        "A family is one row of FAMILIES in dlbench/models/families.py."
    )
