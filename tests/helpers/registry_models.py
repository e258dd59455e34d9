"""A tiny random model of any causal language model that transformers has, by its `model_type` alone."""

import inspect

import tiny_models
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

KINDS = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
_DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads")
_WIDTH = ("hidden_size", "d_model", "n_embd", "word_embed_proj_dim")
_INNER = ("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "moe_intermediate_size")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")
_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts")
SIZES = {
    **dict.fromkeys(_DEPTH, 4),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_WIDTH, 32),
    **dict.fromkeys(_INNER, 48),
    **dict.fromkeys(_CONTEXT, tiny_models.CONTEXT),
    **dict.fromkeys(_EXPERTS, 4),
    **{"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 4},
    **{"num_key_value_heads": 2, "head_dim": 8, "global_head_dim": 16, "rotary_dim": 4, "sliding_window": 5},
    **{"q_lora_rank": 16, "kv_lora_rank": 12, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 8},
    **{"vocab_size": tiny_models.VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None},
    **{"tie_word_embeddings": False, "is_decoder": True, "encoder_layers": 2},
}
LATENT = {"num_key_value_heads": 4, "head_dim": 4}
"""Sizes beside them for latent attention."""


def make(kind, limit=3_000_000):
    """A model of at most `limit` parameters; None where these sizes give no valid or no small model."""
    config_class = CONFIG_MAPPING[kind]
    fields = set(inspect.signature(config_class.__init__).parameters) | set(config_class.attribute_map)
    fields |= set(getattr(config_class, "__dataclass_fields__", {}))
    sizes = {name: value for name, value in (SIZES | (LATENT if "kv_lora_rank" in fields else {})).items()}
    try:
        config = config_class(**{name: value for name, value in sizes.items() if name in fields})
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config)
        if sum(p.numel() for p in empty.parameters()) > limit:
            return None
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    except Exception:
        return None
    tiny_models._perturb(model, 0)
    return model.eval()
