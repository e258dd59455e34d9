"""Tiny random decoders of each supported family, on which every bias and every norm matters."""

from functools import cache

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from dlbench.backbones import Backbone, wrap

VOCABULARY = 61
CONTEXT = 96
FAMILIES = ("llama", "opt", "opt-projected", "gpt2")


def build(family: str, *, depth: int = 5, attention: str = "sdpa", dtype: torch.dtype = torch.float32, seed: int = 0):
    """A new model; the same arguments give the same weights."""
    torch.manual_seed(seed)
    shared = {
        "vocab_size": VOCABULARY,
        "attn_implementation": attention,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": None,
        "tie_word_embeddings": False,  # tied random weights repeat one token for ever, and hide what went wrong
    }
    if family == "llama":  # two query heads share a key head
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=depth,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=CONTEXT,
                attention_bias=True,
                mlp_bias=True,
                **shared,
            )
        )
    elif family in ("opt", "opt-projected"):
        model = OPTForCausalLM(
            OPTConfig(
                hidden_size=32,
                word_embed_proj_dim=32 if family == "opt" else 20,
                ffn_dim=48,
                num_hidden_layers=depth,
                num_attention_heads=4,
                max_position_embeddings=CONTEXT,
                **shared,
            )
        )
    elif family == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(n_embd=32, n_inner=48, n_layer=depth, n_head=4, n_positions=CONTEXT, **shared)
        )
    else:
        raise ValueError(family)
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


def prompts(count: int, longest: int = 9, seed: int = 0) -> list[tuple[int, ...]]:
    """Random token ids, 2 to `longest` per prompt, of different lengths wherever there are several."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [2 + (5 * i + seed) % (longest - 1) for i in range(count)]
    return [tuple(torch.randint(2, VOCABULARY, (n,), generator=generator).tolist()) for n in lengths]
