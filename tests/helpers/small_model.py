"""A tiny random Llama with nano's tokenizer, saved as transformers saves models."""

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from dlbench.models.loading import embedded_folder


def save(folder, *, context=512, chat=None, dtype=torch.float32, **options):
    """Save the model into a folder and return it.

    Args:
        folder: made where it is not there.
        context: most positions.
        chat: a chat template to give the tokenizer.
        dtype: of the stored weights.
        **options: of the model's configuration.
    """
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder("nano"))
    if chat is not None:
        tokenizer.chat_template = chat
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        max_position_embeddings=context,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **{"num_hidden_layers": 4, "initializer_range": 0.2, **options},
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
