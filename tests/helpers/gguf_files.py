"""GGUF files of tiny random Llamas with nano's tokenizer, written by the package `gguf` as llama.cpp writes them."""

import json

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dlbench.models.loading import embedded_folder

CHAT = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
HEADS, KEY_HEADS, LAYERS = 4, 2, 4


def model(seed=0):
    """A new model with a head of its own."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1024,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KEY_HEADS,
            max_position_embeddings=256,
            initializer_range=0.2,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    ).eval()


def save(path, *, kind="Q4_1", architecture="llama", more=None, tokenizer=True, seed=0):
    """Write a model into a GGUF file and return its path.

    Args:
        path: of the file.
        kind: type of the matrices; vectors are F32.
        architecture: what the file says that it is.
        more: name → array of further tensors.
        tokenizer: whether it has one.
        seed: of the weights.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(1024)
    named = {"F32": "ALL_F32"}.get(kind, f"MOSTLY_{kind}")
    writer.add_file_type(gguf.LlamaFileType[named])
    if tokenizer:
        _add_tokenizer(writer)
    for name, value in model(seed).state_dict().items():
        _add(writer, _named(name), _rotated(name, value).numpy(), kind)
    for name, value in (more or {}).items():
        _add(writer, name, value, "F32")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _named(name):
    if name in NAMES:
        return NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def _rotated(name, value):
    """Rows of queries and keys in the order of llama.cpp, which rotates neighbours instead of halves."""
    heads = HEADS if "q_proj" in name else KEY_HEADS if "k_proj" in name else 0
    if not heads:
        return value
    return value.reshape(heads, 2, value.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(value.shape)


def _add(writer, name, value, kind):
    value = np.ascontiguousarray(value)
    if value.ndim < 2 or kind == "F32":
        writer.add_tensor(name, value.astype(np.float32))
    else:
        quantised = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quantize(value, quantised), raw_dtype=quantised)


def _add_tokenizer(writer):
    content = json.loads((embedded_folder("nano") / "tokenizer.json").read_text())
    special = {token["id"]: token["content"] for token in content["added_tokens"]}
    tokens = {**{number: text for text, number in content["model"]["vocab"].items()}, **special}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([tokens[number] for number in range(len(tokens))])
    writer.add_token_types([control if number in special else normal for number in range(len(tokens))])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHAT)
