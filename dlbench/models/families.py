"""Families of transformers decoders: where the engine finds the modules that it needs, and what layers take and return.

The table has a row for each family whose proof the tests make, and for what structure cannot tell. Other decoders are
recognised (`dlbench.models.recognition`) and proved when they are loaded. Either way decoder layers must take the
hidden state as first argument, write keys and values through the library's cache, and have attention and feed-forward
as modules (or the feed-forward as two linear maps in a row).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True)
class KeyValueShape:
    """What one layer stores of one token."""

    heads: int
    keys: int
    """Width of a key."""
    values: int
    """Width of a value."""
    flops: int | None = None
    """FLOPs of one query and one key, scores and weighted sum of all heads; None: by these widths."""


@dataclass(frozen=True)
class Family:
    """Where one family has the modules that the engine needs; paths are dotted attributes."""

    layers: str
    """The list of decoder layers, relative to the model."""
    head: tuple[str, ...]
    """Modules from the last state to logits, in order; a module that is None is left out."""
    attention: str = "self_attn"
    """The attention module of a layer; in families with recurrent layers, some layers may lack it."""
    recurrent: str | None = None
    """The module that keeps a state from token to token, in place of attention or beside it; None: there is none."""
    recurrence: Literal["", "conv", "mamba", "mamba2", "delta"] = ""
    """What that module computes; see `dlbench.models.recurrence`."""
    mlp: tuple[str, ...] = ("mlp",)
    """The feed-forward of a layer: its module, or its first and last linear map where it is written inline."""
    fill: tuple[str, ...] = ("self_attn.k_proj", "self_attn.v_proj")
    """Projections of a layer that compute its keys and values."""
    query: tuple[str, ...] = ("self_attn.q_proj",)
    """Projections that compute queries alone, which keys and values do not need; none where one computes all three."""
    inputs: tuple[str, ...] = ()
    """Projections between the embedding and the first layer."""
    adds_residual: tuple[Literal["attention", "mlp"], ...] = ()
    """Which of attention and feed-forward receive the residual and add it themselves."""
    counts_keys: bool = False
    """Whether attention derives a token's position from the number of keys."""
    returns_tuple: bool = False
    """Whether a layer returns (state, attention weights) instead of the state."""
    attention_outputs: int = 2
    """How many values attention returns, the state first."""
    shared: tuple[str, ...] = ()
    """Tensor arguments of a layer that belong to no row, whatever their first dimension."""
    mask_hides: bool = False
    """Whether boolean attention masks are True where a key is hidden, instead of where it is visible."""
    needs_rows: bool = False
    """Whether layers need projections whose rows are contiguous in memory (Llama 4 views them as complex numbers)."""
    logit_scale: str | None = None
    """The setting of the configuration that logits are multiplied by after the LM head; None: they are not."""
    logit_divisor: str | None = None
    """The setting of the configuration that logits are divided by after the LM head; None: they are not."""
    key_values: tuple[KeyValueShape, ...] = ()
    """Keys and values that each layer stores of a token; none: as the configuration says."""
    expansions: tuple[str, ...] = ()
    """Linear maps of a layer that run on every key again: latent attention expands what it has stored (DeepSeek)."""
    recognised: bool = False
    """Whether this was found from a model's structure, so that the engine proves it when the model is loaded."""
    reads_again: bool = False
    """Whether `generate` prefills the text again at the length where longrope switches its angles."""


_LLAMA = Family(layers="model.layers", head=("model.norm", "lm_head"))
_GPT = Family(
    layers="transformer.h",
    head=("transformer.ln_f", "lm_head"),
    attention="attn",
    fill=("attn.c_attn",),
    query=(),
)
_MAMBA = replace(_LLAMA, head=("model.final_layernorm", "lm_head"), mlp=("feed_forward",), recurrent="mamba")
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "olmo2", "smollm3"),
        _LLAMA,
    ),
    **dict.fromkeys(
        ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "glm4_moe", "ernie4_5_moe", "gpt_oss"),
        _LLAMA,
    ),
    "granitemoe": replace(_LLAMA, mlp=("block_sparse_moe",), logit_divisor="logits_scaling"),
    "phi3": replace(_LLAMA, fill=("self_attn.qkv_proj",), query=(), reads_again=True),
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
        query=("attn.attention.q_proj",),
        counts_keys=True,
        returns_tuple=True,
    ),
    "gpt_neox": Family(
        layers="gpt_neox.layers",
        head=("gpt_neox.final_layer_norm", "lm_head"),
        attention="attention",
        fill=("attention.query_key_value",),
        query=(),
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
        adds_residual=("attention", "mlp"),
        returns_tuple=True,
    ),
    **dict.fromkeys(
        ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
        replace(_LLAMA, recurrent="linear_attn", recurrence="delta"),
    ),
    "lfm2": replace(
        _LLAMA,
        head=("model.embedding_norm", "lm_head"),
        mlp=("feed_forward",),
        recurrent="conv",
        recurrence="conv",
    ),
    "jamba": replace(_MAMBA, recurrence="mamba"),
    "falcon_h1": replace(_MAMBA, recurrence="mamba2", returns_tuple=True, logit_scale="lm_head_multiplier"),
}
"""By transformers' `model_type`."""


def resolve(module: Any, path: str) -> Any:
    """The module at a path of dotted attributes."""
    for name in path.split("."):
        module = getattr(module, name)
    return module


def attention_of(family: Family, layer: Any) -> Any:
    """A layer's attention module; None where a recurrent module stands in its place."""
    if family.recurrent is not None and not hasattr(layer, family.attention):
        return None
    return resolve(layer, family.attention)


def recurrent_of(family: Family, layer: Any) -> Any:
    """A layer's module that keeps a state from token to token; None where it has none."""
    return None if family.recurrent is None else getattr(layer, family.recurrent, None)


def mixers_of(family: Family, layer: Any) -> list[Any]:
    """What `Action.ATTN` runs of a layer: its attention, its recurrent module, or both."""
    return [module for module in (attention_of(family, layer), recurrent_of(family, layer)) if module is not None]


def unsupported(name: str, kind: str, reason: str) -> str:
    """Message for a model that dlbench cannot run: why, and what it can.

    Args:
        name: the model's.
        kind: its `model_type`.
        reason: why its structure was not recognised, or could not be proved.
    """
    return (
        f"model {name!r} is of type {kind!r}, which dlbench cannot run: {reason}. It runs "
        f"{', '.join(sorted(FAMILIES))} and other decoders of transformers whose structure it recognises; what "
        "structure cannot tell is a row of FAMILIES in dlbench/models/families.py"
    )
