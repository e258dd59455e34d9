"""The reference for recurrent layers: one text, token by token through the stock model and a stock cache."""

import inspect
from contextlib import contextmanager
from copy import deepcopy

import replay
import torch
from transformers.cache_utils import Cache, DynamicCache

from dlbench.method import Action
from dlbench.models.families import attention_of, mixers_of


def cache_argument(function):
    """What a function calls its cache."""
    return next(n for n in ("past_key_values", "cache") if n in inspect.signature(function).parameters)


@contextmanager
def states_kept(cache, index):
    """Put a layer's recurrent states back afterwards."""
    layer, before = cache.layers[index], {}
    for name in ("conv_states", "recurrent_states"):
        before[name] = {i: None if x is None else x.clone() for i, x in getattr(layer, name, {}).items()}
    yield
    for name, states in before.items():
        if hasattr(layer, name):
            for i, state in states.items():
                getattr(layer, name)[i] = state


def half(backbone, layer, left_out):
    """A copy of a layer whose mixers or feed-forward add nothing."""
    if left_out == Action.MLP:
        return replay.without(backbone, layer, left_out)
    copied = deepcopy(layer)
    vars(copied).pop("forward", None)
    for module in mixers_of(backbone.family, copied):
        for parameter in module.parameters():
            parameter.data.zero_()
    return copied


def run(backbone, prompt, tokens, codes, kv):
    """Logits that choose each token of `tokens`: [len(tokens), vocabulary].

    Args:
        backbone: the model.
        prompt: its tokens run every layer.
        tokens: new tokens; all but the last are forwarded.
        codes: of each decode step, the codes of the layers that were asked about; nothing runs after them.
        kv: what becomes of the keys and values of skipped tokens; a state that is skipped stays, unless `recompute`.
    """
    depth, full = backbone.depth, [int(Action.RUN)] * backbone.depth
    plan = [full] * len(prompt) + [[*(c & Action.RUN for c in step), *[0] * depth][:depth] for step in codes]
    cache, logits = DynamicCache(config=backbone.model.config), []
    step, exited = [], []

    def around(index, layer, forward, hidden, **kwargs):
        name = cache_argument(type(layer).forward)
        kwargs["attention_mask"] = None  # a single token sees all that its layer has kept
        assert isinstance(kwargs[name], Cache)
        code = step[index]
        if kv == "recompute":
            if not code and not exited:
                exited.append(hidden)
            out = replay.state(forward(hidden, **kwargs))
            return exited.pop() if index == depth - 1 and exited else out
        if code == Action.RUN:
            return replay.state(forward(hidden, **kwargs))
        if code == Action.ATTN:
            return replay.state(half(backbone, layer, Action.MLP)(hidden, **kwargs))
        if kv == "project" and attention_of(backbone.family, layer) is not None:
            with states_kept(cache, index):
                forward(hidden, **kwargs)  # leaves keys and values
        if code == Action.MLP:
            return replay.state(half(backbone, layer, Action.ATTN)(hidden, **{**kwargs, name: None}))
        return hidden

    with replay.shadowed(backbone, around), torch.inference_mode():
        for position, token in enumerate([*prompt, *tokens[:-1]]):
            step[:] = plan[position]
            name = cache_argument(type(backbone.model).forward)
            where = torch.tensor([[position]])
            out = backbone.model(torch.tensor([[token]]), position_ids=where, use_cache=True, **{name: cache})
            logits.append(out.logits[0, -1])
    return torch.stack(logits[len(prompt) - 1 :])
