"""Where the decoder layers of transformers' model types keep the modules that a fused layer needs: one row per type."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LayerSpec:
    """Where a decoder layer keeps its modules; names are dotted attributes of the layer."""

    norms: tuple[str | None, str | None, str | None, str | None]
    """Norms before attention, after it, before the feed-forward and after it."""
    qkv: tuple[str, ...]
    """Projections to queries, keys and values, in this order, or one packed projection."""
    out: str
    up: tuple[str, ...]
    """First projections of the feed-forward: gate and up, or one that is packed or not gated."""
    down: str
    act: str
    gated: bool = True
    interleaved: bool = False
    """Whether the packed projection is ordered by head: query, key and value of the first head, and so on."""
    head_norms: tuple[str, str] | None = None
    """Norms of queries and keys: per head, or over all heads where the norm is that wide."""
    offset: float = 0.0
    """Added to the weight of a root-mean-square norm."""
    parallel: str | None = None
    """Configuration attribute that says whether attention and feed-forward read the same state, in parallel."""
    needs: str | None = None
    """Configuration attribute that must be true for the row to hold."""
    positions: tuple[str, int] | None = None
    """The model's table of learned positions, and its row for position 0; None without such a table."""


_LLAMA = LayerSpec(
    norms=("input_layernorm", None, "post_attention_layernorm", None),
    qkv=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.o_proj",
    up=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    act="mlp.act_fn",
)
_QK = ("self_attn.q_norm", "self_attn.k_norm")
LAYER_SPECS: dict[str, LayerSpec] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "smollm3"), _LLAMA),
    "qwen3": replace(_LLAMA, head_norms=_QK),
    "gemma3_text": replace(
        _LLAMA,
        norms=(
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        ),
        head_norms=_QK,
        offset=1.0,
    ),
    "olmo2": replace(
        _LLAMA, norms=(None, "post_attention_layernorm", None, "post_feedforward_layernorm"), head_norms=_QK
    ),
    "phi3": replace(_LLAMA, qkv=("self_attn.qkv_proj",), up=("mlp.gate_up_proj",), act="mlp.activation_fn"),
    "opt": replace(
        _LLAMA,
        norms=("self_attn_layer_norm", None, "final_layer_norm", None),
        out="self_attn.out_proj",
        up=("fc1",),
        down="fc2",
        act="activation_fn",
        gated=False,
        needs="do_layer_norm_before",
        positions=("model.decoder.embed_positions", 2),
    ),
    "gpt2": LayerSpec(
        norms=("ln_1", None, "ln_2", None),
        qkv=("attn.c_attn",),
        out="attn.c_proj",
        up=("mlp.c_fc",),
        down="mlp.c_proj",
        act="mlp.act",
        gated=False,
        positions=("transformer.wpe", 0),
    ),
    "gpt_neox": LayerSpec(
        norms=("input_layernorm", None, "post_attention_layernorm", None),
        qkv=("attention.query_key_value",),
        out="attention.dense",
        up=("mlp.dense_h_to_4h",),
        down="mlp.dense_4h_to_h",
        act="mlp.act",
        gated=False,
        interleaved=True,
        parallel="use_parallel_residual",
    ),
}
"""transformers' model types."""
