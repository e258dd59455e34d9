"""Texts alone, under rotary angles that depend on the length: by functions of transformers and new modules."""

import copy
from contextlib import contextmanager
from functools import partial

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from dlbench.models.families import resolve


def rotary(backbone):
    return resolve(backbone.model, backbone.family.layers.rpartition(".")[0]).rotary_emb


def fresh(model, path):
    """A copy of a model that has met no text yet: stock modules remember how long those were."""
    model = copy.deepcopy(model)
    inner = resolve(model, path.rpartition(".")[0])
    inner.rotary_emb = type(inner.rotary_emb)(model.config)
    return model


def generate(backbone, prompt, limit, model=None):
    """New tokens of stock generation on one prompt, alone and for the first time."""
    model = fresh(model or backbone.model, backbone.family.layers)
    ids = torch.tensor([prompt])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=limit,
        eos_token_id=None,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def angles(module, x, positions, lengths, layer_type=None):
    """Angles of positions, [1, n], each in a text of its own length, by transformers' frequencies of that length."""
    kind = module.rope_type if layer_type is None else module.rope_type[layer_type]
    found = []
    for position, length in zip(positions[0].tolist(), lengths, strict=True):
        if kind == "default":
            frequencies, scale = module.compute_default_rope_parameters(module.config, layer_type=layer_type)
        else:
            make = ROPE_INIT_FUNCTIONS[kind]
            frequencies, scale = make(module.config, None, seq_len=torch.tensor(length), layer_type=layer_type)
        turned = position * frequencies.float().repeat(2)
        found.append(torch.stack((turned.cos() * scale, turned.sin() * scale)))
    cos, sin = torch.stack(found, 1)[:, None].to(x.dtype)
    return cos, sin


@contextmanager
def read_as(backbone, lengths):
    """Let one text be forwarded whole, without a cache, as if each token had been read when the text was so long."""
    module = rotary(backbone)

    def forward(module, x, position_ids, layer_type=None):
        return angles(module, x, position_ids, lengths[: position_ids.shape[1]], layer_type)

    module.forward = partial(forward, module)
    try:
        yield
    finally:
        del module.forward


def when_read(prompt, tokens):
    """How long a text was when each of its tokens was read: its prompt at once, then token by token."""
    return [prompt] * prompt + list(range(prompt + 1, prompt + tokens + 1))
