"""Random models and prompts: speed does not ask what the weights have learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dlbench.bench.sizes import Shape
from dlbench.engine import Request
from dlbench.models.backbone import Backbone, wrap
from dlbench.models.loading import TORCH_DTYPES
from dlbench.terminal.quiet import quiet_torchao

CONTEXT = 1024
"""Positions of the random models."""


def random_llama(shape: Shape, *, device: str, dtype: str, tokenizer: Any = None) -> Backbone:
    """A Llama with random weights which writes no end token."""
    with quiet_torchao():
        from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    with quiet_torchao(), torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=TORCH_DTYPES[dtype])  # type: ignore[no-untyped-call]
    with torch.no_grad():
        model.lm_head.weight[:SPECIAL].zero_()
    return wrap(model, tokenizer, name=f"random Llama, {shape}")


SPECIAL = 2
"""Token 0 pads, token 1 ends a text; neither is ever the likeliest."""


def random_requests(count: int, length: int, limit: int, vocabulary: int) -> list[Request]:
    """Prompts of one length without a stop."""
    rng = np.random.default_rng(0)
    return [
        Request(f"prompt {i}", tuple(rng.integers(SPECIAL, vocabulary, length).tolist()), limit) for i in range(count)
    ]


def word_tokenizer(vocabulary: int) -> Any:
    """A tokenizer of one word per token, so that a prompt of n words has n tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<end>": 1, **{f"w{i}": i for i in range(SPECIAL, vocabulary)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner,
        pad_token="<pad>",
        unk_token="<pad>",
        eos_token="<end>",
        padding_side="left",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def random_texts(count: int, lengths: tuple[int, int], vocabulary: int) -> list[str]:
    """Texts of `word_tokenizer`'s words, their lengths spread evenly between the two bounds."""
    rng = np.random.default_rng(1)
    spread = np.linspace(*lengths, count).round().astype(int)
    return [" ".join(f"w{i}" for i in rng.integers(SPECIAL, vocabulary, n)) for n in rng.permutation(spread)]
