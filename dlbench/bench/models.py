"""What is timed: models of random weights, since speed does not depend on them, prompts, and how much of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from dlbench.bench.options import Subject
from dlbench.engine import Request
from dlbench.models.backbone import Backbone, wrap
from dlbench.models.loading import TORCH_DTYPES
from dlbench.terminal.quiet import quiet_torchao

CONTEXT = 1024
"""Positions of the random models."""
SPECIAL = 2
"""Special tokens, none of which is ever the likeliest: token 0 pads, token 1 ends a text."""


@dataclass(frozen=True)
class Shape:
    """Shape of a Llama with random weights."""

    layers: int
    width: int
    heads: int
    intermediate: int
    vocabulary: int = 4096

    def __str__(self) -> str:
        return f"{self.layers} × {self.width}"


@dataclass(frozen=True)
class Sizes:
    """Sizes of one benchmark run: models, batches, tokens and repeats."""

    quick: bool
    narrow: Shape = Shape(16, 192, 6, 512)
    wide: Shape = Shape(24, 1024, 16, 2816)
    wide_batches: tuple[int, ...] = (1, 16)
    """Batch sizes at which the wide model is compared with generate."""
    prompt: int = 100
    """Prompt tokens of the decoding parts."""
    narrow_tokens: int = 65
    """New tokens of a timed decoding run; the first comes from the prefill."""
    narrow_rounds: int = 11
    wide_tokens: int = 17
    wide_rounds: int = 5
    documents: int = 64
    """Documents of each nano task."""
    request_batches: tuple[int, ...] = (16, 48)
    request_rounds: int = 5
    sweep_prompts: int = 64
    sweep_lengths: tuple[int, int] = (300, 360)
    """Shortest and longest prompt of the sweep, in tokens."""
    sweep_tokens: int = 48
    sweep_rounds: int = 3
    memory_rounds: int = 2
    start_rounds: int = 2
    subject: Subject | None = None
    """The model to benchmark, where one was given; then the sizes below count, beside `prompt`."""
    model_tokens: int = 33
    model_rounds: int = 5
    model_documents: int = 16
    """Documents of each task."""
    patience: float = 120
    """Seconds after which contenders begin no further round: a slow or busy machine gets fewer repeats."""


def sizes(*, quick: bool, cuda: bool, subject: Subject | None = None) -> Sizes:
    """Return the sizes for a kind of machine, and for the model to benchmark, if one is given."""
    chosen = Sizes(quick=quick, subject=subject)
    if cuda:
        chosen = replace(chosen, wide=Shape(24, 2048, 16, 5632), wide_batches=(1, 32), wide_tokens=65)
    if quick:
        chosen = replace(
            chosen,
            wide=replace(chosen.wide, layers=6),
            narrow_tokens=25,
            narrow_rounds=5,
            wide_tokens=9 if not cuda else 33,
            documents=15,
            sweep_prompts=16,
            memory_rounds=1,
            start_rounds=1,
            model_tokens=17,
            model_rounds=3,
            patience=12,
        )
    return chosen


def random_llama(shape: Shape, *, device: str, dtype: str, tokenizer: Any = None) -> Backbone:
    """Return a Llama with random weights that never generates an end token."""
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


def random_requests(count: int, length: int, limit: int, vocabulary: int) -> list[Request]:
    """Return random prompts of one length, without stop strings."""
    rng = np.random.default_rng(0)
    return [
        Request(f"prompt {i}", tuple(rng.integers(SPECIAL, vocabulary, length).tolist()), limit) for i in range(count)
    ]


def word_tokenizer(vocabulary: int) -> Any:
    """Return a tokenizer of one word per token, so that a prompt of n words has n tokens."""
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
    """Return texts of `word_tokenizer`'s words, their lengths spread evenly between two bounds."""
    rng = np.random.default_rng(1)
    spread = np.linspace(*lengths, count).round().astype(int)
    return [" ".join(f"w{i}" for i in rng.integers(SPECIAL, vocabulary, n)) for n in rng.permutation(spread)]
