"""Tiny random models, and a toy task of single characters, on which a method's contract is checked in seconds."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.models.backbone import Backbone, wrap

DEPTH = 6
VOCABULARY = 61
_WIDTH, _CONTEXT, _LIMIT = 32, 96, 10


def _llama(width: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 3 // 2,
        num_hidden_layers=DEPTH,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=_CONTEXT,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )


_CONFIGS: dict[str, Any] = {
    "llama": lambda: _llama(_WIDTH),
    "wide llama": lambda: _llama(256),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=_WIDTH,
        n_inner=48,
        n_layer=DEPTH,
        n_head=4,
        n_positions=_CONTEXT,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    ),
}


class CharacterTokenizer:
    """One token per character: token 0 is the space, token i the i-th character after it."""

    bos_token_id = None
    eos_token_id = None

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(c) - 32 for c in text]}

    def __len__(self) -> int:
        return VOCABULARY

    def decode(self, tokens: list[int], skip_special_tokens: bool = False) -> str:
        """The text of some tokens."""
        return "".join(chr(32 + token) for token in tokens)


class CharacterTask:
    """Scores an output by the share of the reference's characters that stand at their place."""

    name = "characters"
    metric = "same"

    def score(self, document: Document, output: str) -> Mapping[str, float]:
        """Score an output."""
        (reference,) = document.references
        return {"same": sum(map(str.__eq__, reference, output)) / max(1, len(reference))}


def task() -> Task:
    """The toy task; it offers what fits ask of a task."""
    return cast(Task, CharacterTask())


@functools.cache
def backbone(family: str) -> Backbone:
    """A random model of a family, in float64, so that a batch decides as its rows alone do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto: Any = AutoModelForCausalLM
        config = _CONFIGS[family]()
        width = config.hidden_size
        model = auto.from_config(config, dtype=torch.float64, attn_implementation="sdpa")
        for parameter in model.parameters():  # states of these differ from layer to layer as those of a trained model
            torch.nn.init.normal_(parameter, std=0.3 * math.sqrt(_WIDTH / width) if parameter.ndim > 1 else 0.5)
    return wrap(model.eval(), cast(Any, CharacterTokenizer()))


@functools.cache
def documents(family: str, count: int) -> tuple[Document, ...]:
    """Random prompts; the reference of each is what the model writes."""
    model, tokenizer, found = backbone(family).model, CharacterTokenizer(), []
    for document in prompts(count, 7):
        ids = torch.tensor([tokenizer(document.prompt)["input_ids"]])
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=_LIMIT, pad_token_id=0
        )
        reference = tokenizer.decode(written[0, ids.shape[1] :].tolist())
        found.append(replace(document, references=(reference,)))
    return tuple(found)


def prompts(count: int, seed: int) -> list[Document]:
    """Random prompts without references."""
    tokenizer, generator, found = CharacterTokenizer(), torch.Generator().manual_seed(seed), []
    for index in range(count):
        length = int(torch.randint(3, 12, (1,), generator=generator))
        ids = torch.randint(2, VOCABULARY, (length,), generator=generator).tolist()
        limit = _LIMIT if index % 3 else 1 + index % 4  # rows end at different steps
        found.append(Document(f"fit-{index}", tokenizer.decode(ids), (), limit, (), index, None, "fit"))
    return found
