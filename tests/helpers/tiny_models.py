"""Tiny random decoders of each supported family, on which every bias and every norm matters."""

import copy
from functools import cache

import torch
import transformers
from transformers import AutoModelForCausalLM

from dlbench.export.pruning import prune
from dlbench.models.backbone import Backbone, wrap

VOCABULARY = 61
CONTEXT = 96
FAMILIES = ("llama", "opt", "opt-projected", "gpt2")
"""The families that every test of the engine takes."""
WINDOW = 5
_LLAMA = {"hidden_size": 32, "intermediate_size": 48, "num_key_value_heads": 2}  # two query heads share a key head
_GEMMA = {**_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}
_OPT = {"hidden_size": 32, "ffn_dim": 48}
_NEOX = {"hidden_size": 32, "intermediate_size": 48, "rotary_pct": 0.5}
_FALCON = {"hidden_size": 32, "ffn_hidden_size": 48}
_VARIANTS = {
    "llama": ("LlamaConfig", {**_LLAMA, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("MistralConfig", {**_LLAMA, "sliding_window": None}),
    "mistral-window": ("MistralConfig", {**_LLAMA, "sliding_window": WINDOW}),
    "qwen2": ("Qwen2Config", _LLAMA),
    "qwen2-mixed": (
        "Qwen2Config",
        {**_LLAMA, "use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 2},
    ),
    "qwen3": ("Qwen3Config", {**_LLAMA, "head_dim": 8}),
    "gemma2": ("Gemma2Config", {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 9.0}),
    "gemma3": (
        "Gemma3TextConfig",
        {**_GEMMA, "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]},
    ),
    "olmo2": ("Olmo2Config", _LLAMA),
    "phi3": ("Phi3Config", {**_LLAMA, "sliding_window": None}),
    "phi3-window": ("Phi3Config", {**_LLAMA, "sliding_window": WINDOW}),
    "smollm3": ("SmolLM3Config", {**_LLAMA, "no_rope_layer_interval": 2}),
    "opt": ("OPTConfig", {**_OPT, "word_embed_proj_dim": 32}),
    "opt-projected": ("OPTConfig", {**_OPT, "word_embed_proj_dim": 20}),
    "opt-postnorm": ("OPTConfig", {**_OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_inner": 48, "n_positions": CONTEXT}),
    "gpt_neo": (
        "GPTNeoConfig",
        {"hidden_size": 32, "intermediate_size": 48, "window_size": WINDOW, "max_position_embeddings": CONTEXT},
    ),
    "gpt_neox": ("GPTNeoXConfig", {**_NEOX, "use_parallel_residual": True}),
    "gpt_neox-sequential": ("GPTNeoXConfig", {**_NEOX, "use_parallel_residual": False}),
    "falcon-7b": ("FalconConfig", {**_FALCON, "multi_query": True, "parallel_attn": True, "bias": False}),
    "falcon-40b": ("FalconConfig", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2, "bias": False}),
    "falcon-alibi": (
        "FalconConfig",
        {**_FALCON, "alibi": True, "parallel_attn": False, "multi_query": False, "bias": True},
    ),
    "bloom": ("BloomConfig", {"hidden_size": 32}),
}
_MAMBA = {"mamba_d_state": 6, "mamba_d_conv": 4, "mamba_expand": 2}
_DELTA = {
    **_LLAMA,
    "head_dim": 8,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_key_head_dim": 6,
    "linear_value_head_dim": 5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "partial_rotary_factor": 0.5,
}
_HYBRIDS = {
    "lfm2": (
        "Lfm2Config",
        {**_LLAMA, "layer_types": ["conv", "full_attention", "conv", "conv", "full_attention"]},
    ),
    "jamba": (
        "JambaConfig",
        {**_LLAMA, **_MAMBA, "num_experts": 1, "attn_layer_period": 3, "attn_layer_offset": 1},
    ),
    "falcon_h1": (
        "FalconH1Config",
        {
            **_LLAMA,
            **_MAMBA,
            "mamba_d_ssm": 24,
            "mamba_n_heads": 4,
            "mamba_n_groups": 2,
            "mamba_chunk_size": 4,
            "lm_head_multiplier": 0.5,
            "key_multiplier": 0.7,
            "ssm_out_multiplier": 0.8,
        },
    ),
    "falcon_h1-norm": (
        "FalconH1Config",
        {**_LLAMA, **_MAMBA, "mamba_d_ssm": 24, "mamba_n_heads": 4, "mamba_chunk_size": 8, "mamba_rms_norm": True},
    ),
    "qwen3_next": ("Qwen3NextConfig", {**_DELTA, "mlp_only_layers": [0, 1, 2, 3, 4]}),
    "qwen3_5": ("Qwen3_5TextConfig", _DELTA),
    "qwen3_5_moe": (
        "Qwen3_5MoeTextConfig",
        {
            **_DELTA,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
        },
    ),
}
HYBRIDS = tuple(_HYBRIDS)
"""Families with recurrent layers; their lists of layers are those of a depth of 5."""
EVERY = tuple(_VARIANTS)
"""Every family, with its variants."""
ORIGINAL = 20
"""Positions after which the angles of these change."""
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.6],
    "long_factor": [1.5, 4.0, 9.0, 20.0],
    "original_max_position_embeddings": ORIGINAL,
}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
_FULL_LONG = {"full_attention": _LONG, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}
_SCALED = {
    "phi3-longrope": (
        "Phi3Config",
        {**_LLAMA, "sliding_window": None, "rope_parameters": _LONG, "original_max_position_embeddings": ORIGINAL},
    ),
    "phi3-longrope-window": (
        "Phi3Config",
        {**_LLAMA, "sliding_window": WINDOW, "rope_parameters": _LONG, "original_max_position_embeddings": ORIGINAL},
    ),
    "llama-longrope": ("LlamaConfig", {**_LLAMA, "attention_bias": True, "rope_parameters": _LONG}),
    "gemma3-longrope": (
        "Gemma3TextConfig",
        {
            **_GEMMA,
            "layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"],
            "rope_parameters": _FULL_LONG,
        },
    ),
    "llama-dynamic": ("LlamaConfig", {**_LLAMA, "max_position_embeddings": ORIGINAL, "rope_parameters": _DYNAMIC}),
    "qwen2-dynamic": ("Qwen2Config", {**_LLAMA, "max_position_embeddings": ORIGINAL, "rope_parameters": _DYNAMIC}),
    "gpt_neox-dynamic": (
        "GPTNeoXConfig",
        {
            **_NEOX,
            "max_position_embeddings": ORIGINAL,
            "rope_parameters": {**_DYNAMIC, "partial_rotary_factor": 0.5},
        },
    ),
    "falcon-dynamic": (
        "FalconConfig",
        {
            **_FALCON,
            "multi_query": True,
            "parallel_attn": True,
            "bias": False,
            "max_position_embeddings": ORIGINAL,
            "rope_parameters": _DYNAMIC,
        },
    ),
}
SCALED = tuple(_SCALED)
"""Families whose rotary angles depend on the length of the text."""
_STEADY = {
    "qwen2-yarn": (
        "Qwen2Config",
        {
            **_LLAMA,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "original_max_position_embeddings": ORIGINAL,
            },
        },
    ),
    "llama-llama3": (
        "LlamaConfig",
        {
            **_LLAMA,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": ORIGINAL,
            },
        },
    ),
}
STEADY = tuple(_STEADY)
"""Families whose rotary angles are scaled, but depend on the position alone."""
_DENSE_LATENT = {
    **_LLAMA,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
_MIXED = {**_LLAMA, "sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2}
_RECOGNISED = {
    "apertus": ("ApertusConfig", _LLAMA),
    "arcee": ("ArceeConfig", _LLAMA),
    "cohere": ("CohereConfig", {**_LLAMA, "logit_scale": 0.5, "use_qk_norm": True}),
    "cohere2": ("Cohere2Config", {**_MIXED, "logit_scale": 0.5}),
    "deepseek_v3": ("DeepseekV3Config", {**_DENSE_LATENT, "first_k_dense_replace": 4}),
    "ernie4_5": ("Ernie4_5Config", {**_LLAMA, "head_dim": 8}),
    "exaone4": ("Exaone4Config", {**_MIXED, "sliding_window_pattern": 2}),
    "gemma": ("GemmaConfig", {**_LLAMA, "head_dim": 8}),
    "gemma4": (
        "Gemma4TextConfig",
        {
            **_MIXED,
            "head_dim": 8,
            "global_head_dim": 16,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 0,
            "final_logit_softcapping": 9.0,
        },
    ),
    "glm": ("GlmConfig", {**_LLAMA, "head_dim": 8}),
    "glm4": ("Glm4Config", {**_LLAMA, "head_dim": 8}),
    "gptj": ("GPTJConfig", {"n_embd": 32, "n_inner": 48, "n_positions": CONTEXT, "rotary_dim": 4}),
    "granite": (
        "GraniteConfig",
        {**_LLAMA, "logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    ),
    "helium": ("HeliumConfig", {**_LLAMA, "head_dim": 8}),
    "hunyuan": ("HunYuanDenseV1Config", {**_LLAMA, "head_dim": 8}),
    "llama4": (
        "Llama4TextConfig",
        {
            **_LLAMA,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "moe_layers": [],
            "attention_chunk_size": CONTEXT,
            "no_rope_layers": [1, 0, 1, 1],
        },
    ),
    "ministral": ("MinistralConfig", {**_MIXED, "head_dim": 8}),
    "ministral3": ("Ministral3Config", {**_LLAMA, "head_dim": 8}),
    "mpt": ("MptConfig", {"d_model": 32, "expansion_ratio": 2, "max_seq_len": CONTEXT}),
    "nemotron": ("NemotronConfig", _LLAMA),
    "olmo": ("OlmoConfig", {**_LLAMA, "clip_qkv": 2.0}),
    "olmo3": ("Olmo3Config", _MIXED),
    "phi": ("PhiConfig", {**_LLAMA, "partial_rotary_factor": 0.5, "qk_layernorm": True}),
    "seed_oss": ("SeedOssConfig", {**_LLAMA, "head_dim": 8}),
    "stablelm": ("StableLmConfig", {**_LLAMA, "use_qkv_bias": True, "use_parallel_residual": True}),
    "starcoder2": ("Starcoder2Config", {**_LLAMA, "use_bias": True, "sliding_window": WINDOW}),
}
RECOGNISED = tuple(_RECOGNISED)
"""Families without a row in the table, of at most 4 layers."""
_EXPERTS = {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}
_QWEN_MOE = {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_DEEPSEEK = {
    **_LLAMA,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
_MIXTURES = {
    "mixtral": ("MixtralConfig", _EXPERTS),
    "qwen2_moe": (
        "Qwen2MoeConfig",
        {**_QWEN_MOE, "shared_expert_intermediate_size": 40, "decoder_sparse_step": 2, "norm_topk_prob": True},
    ),
    "qwen3_moe": ("Qwen3MoeConfig", {**_QWEN_MOE, "head_dim": 8, "mlp_only_layers": [2]}),
    "olmoe": ("OlmoeConfig", {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2}),
    "granitemoe": (
        "GraniteMoeConfig",
        {**_EXPERTS, "embedding_multiplier": 1.5, "logits_scaling": 2.0, "residual_multiplier": 0.7},
    ),
    "phimoe": ("PhimoeConfig", {**_EXPERTS, "lm_head_bias": True, "attention_bias": True}),
    "glm4_moe": ("Glm4MoeConfig", {**_DEEPSEEK, "head_dim": 8}),
    "ernie4_5_moe": (
        "Ernie4_5_MoeConfig",
        {**_LLAMA, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 24, "moe_num_shared_experts": 1},
    ),
    "gpt_oss": (
        "GptOssConfig",
        {
            **_EXPERTS,
            "head_dim": 8,
            "sliding_window": WINDOW,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        },
    ),
}
MIXTURES = tuple(_MIXTURES)
"""Families with experts; in some, a part of the layers is dense."""
_SPELLING = {
    "GPT2Config": ("n_layer", "n_head"),
    "BloomConfig": ("n_layer", "n_head"),
    "GPTJConfig": ("n_layer", "n_head"),
    "MptConfig": ("n_layers", "n_heads"),
    "GPTNeoConfig": ("num_layers", "num_heads"),
}
EAGER_ONLY = ("gemma2", "gpt_neo", "bloom", "gptj", "mpt", "gpt_oss")
"""Families without scaled-dot-product attention in transformers."""


def build(
    family: str,
    *,
    depth: int = 5,
    attention: str = "sdpa",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    experts: str | None = None,
    width: int | None = None,
):
    """A new model; the same arguments give the same weights. `experts` names the experts implementation."""
    torch.manual_seed(seed)
    known = {**_VARIANTS, **_SCALED, **_STEADY, **_HYBRIDS, **_RECOGNISED, **_MIXTURES}
    name, options = copy.deepcopy(known[family])  # a configuration changes its parts
    layers, heads = _SPELLING.get(name, ("num_hidden_layers", "num_attention_heads"))
    options = {"max_position_embeddings": CONTEXT, layers: depth, heads: 4, **options}
    if width is not None:
        options["hidden_size"] = width
    if name == "MptConfig":
        options.pop("max_position_embeddings")
    if name == "GPTNeoConfig":
        options["attention_types"] = [[["global", "local"], depth // 2], [["global"], depth % 2]]
    config = getattr(transformers, name)(
        vocab_size=VOCABULARY,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
        tie_word_embeddings=False,  # tied random weights repeat one token for ever, and hide what went wrong
        **options,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager" if family in EAGER_ONLY else attention)
    if experts is not None:
        model.set_experts_implementation(experts)
    _perturb(model, seed)
    return model.to(dtype).eval()


def _perturb(model, seed: int) -> None:
    """Larger matrices than at initialisation, and no bias of 0 or norm of 1: a part left out must show."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(noise * (3.0 if any(part in name for part in ("embed", "wte", "wpe")) else 0.25))
            else:
                p.copy_(noise * 0.3 + (1.0 if "norm" in name or "ln_" in name else 0.0) * (p.mean() > 0.5))


@cache
def backbone(family: str = "llama", depth: int = 5, attention: str = "sdpa", dtype: str = "float32") -> Backbone:
    """A shared backbone: the engine leaves it as it was, and so must a test."""
    return wrap(build(family, depth=depth, attention=attention, dtype=getattr(torch, dtype)), name=f"tiny-{family}")


@cache
def wide(family: str = "llama", depth: int = 5, dtype: str = "float32") -> Backbone:
    """A shared backbone whose heads are 16 numbers wide, as the function in C of a layer takes them."""
    return wrap(build(family, depth=depth, dtype=getattr(torch, dtype), width=64), name=f"wide-{family}")


def prompts(count: int, longest: int = 9, seed: int = 0) -> list[tuple[int, ...]]:
    """Random token ids, 2 to `longest` per prompt, of different lengths wherever there are several."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [2 + (5 * i + seed) % (longest - 1) for i in range(count)]
    return [tuple(torch.randint(2, VOCABULARY, (n,), generator=generator).tolist()) for n in lengths]


def without(backbone, layers):
    """A copy of the model that has only these layers, numbered from 0."""
    model = copy.deepcopy(backbone.model)
    prune(model, backbone.family, layers)
    return model
