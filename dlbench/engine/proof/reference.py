"""What a model computes for one text under given actions, without cache, padding or gates: the reference of a proof.

Shape letters: T tokens of the text, L layers, W model width, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlbench.method import Action
from dlbench.models.attention import windows
from dlbench.models.backbone import Backbone
from dlbench.models.exit_head import exit_head
from dlbench.models.families import resolve
from dlbench.models.layer_patch import shadowed, state_of, with_state

Actions = NDArray[np.int64]
Policy = Literal["project", "evict", "recompute"]


def can_silence(backbone: Backbone) -> bool:
    """Whether all weights within layers are plain numbers in memory, which `_silent` can replace."""
    return all(
        type(p) is nn.Parameter and p.is_floating_point() and not p.is_meta
        for layer in backbone.layers
        for p in layer.parameters()
    ) and not any(b.ndim > 1 and not b.is_floating_point() for layer in backbone.layers for b in layer.buffers())


@torch.no_grad()
def logits_of(backbone: Backbone, text: Sequence[int], actions: Actions, kv: Policy, *, jitter: bool = False) -> Tensor:
    """Logits after every token of a text: [T, V].

    Args:
        backbone: the model; its own forward runs, with the `forward` of each layer replaced by one that heeds actions.
        text: T token ids.
        actions: what each layer does with each token, [T, L].
        kv: what later tokens attend to where a token skipped a layer: keys and values of the state that skipped it, or
            nothing; under `recompute` tokens that exit at a layer are as at full depth for later ones.
        jitter: whether states are rounded at random before every layer, to see how much rounding changes.
    """
    layers = dict(enumerate(backbone.layers))
    names = list(inspect.signature(layers[0].forward).parameters)[1:]
    spans = windows(backbone.model.config, backbone.depth)
    states: list[Tensor] = []
    noise = torch.randn(len(text), backbone.width, generator=torch.Generator().manual_seed(0))

    def around(index: int, forward: Callable[..., Any], hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        kwargs |= zip(names, args, strict=False)
        if jitter:
            hidden = hidden + hidden * noise.to(hidden) * (torch.finfo(hidden.dtype).eps / 2)
        states.append(hidden)
        if kv == "recompute":
            return forward(hidden, **kwargs)
        codes = torch.from_numpy(actions[:, index]).to(hidden.device)
        if kv == "evict":
            gone = (codes & int(Action.ATTN)) == 0
            kwargs["attention_mask"] = _without(
                kwargs.get("attention_mask"), gone, spans[index], backbone, hidden.dtype
            )
        given = forward(hidden, **kwargs)
        out = torch.where((codes == int(Action.RUN))[None, :, None], state_of(given), hidden)
        for part, left_out in ((Action.ATTN, backbone.family.mlp), (Action.MLP, (backbone.family.attention,))):
            if bool((codes == int(part)).any()):
                with _silent([resolve(layers[index], path) for path in left_out]):
                    half = state_of(forward(hidden, **kwargs))
                out = torch.where((codes == int(part))[None, :, None], half, out)
        return with_state(given, out)

    with shadowed(layers, around):
        ids = torch.tensor([list(text)], device=backbone.device)
        logits: Tensor = backbone.model(input_ids=ids, use_cache=False).logits[0]
    if kv == "recompute":
        exits = np.argmax(actions == int(Action.SKIP), 1)
        for token in np.flatnonzero((actions == int(Action.SKIP)).any(1)).tolist():
            logits[token] = exit_head(backbone, states[exits[token]][0, token])
    return logits


@contextmanager
def _silent(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Let the weights of modules be zeros: what such modules add is nothing, however they compute it."""
    held = [(p, p.data) for module in modules for p in module.parameters()]
    try:
        for p, data in held:
            p.data = data.new_zeros(data.shape[-2:]).expand(data.shape)  # one matrix for all experts
        yield
    finally:
        for p, data in held:
            p.data = data


def _without(mask: Any, gone: Tensor, window: int | None, backbone: Backbone, dtype: torch.dtype) -> Tensor:
    """A layer's mask over a whole text, without the keys of tokens that are `gone`: a token still sees itself."""
    ones = torch.ones(len(gone), len(gone), dtype=torch.bool, device=gone.device)
    seen = ones.tril() if window is None else ones.tril().triu(1 - window)
    seen = (seen & (~gone[None] | torch.eye(len(gone), dtype=torch.bool, device=gone.device)))[None, None]
    if backbone.family.mask_hides:
        return ~seen if mask is None else mask | ~seen
    if mask is None and backbone.model.config._attn_implementation == "sdpa":
        return seen
    if mask is not None and mask.dtype == torch.bool:
        return mask & seen  # type: ignore[no-any-return]
    bias = torch.zeros((), dtype=dtype, device=gone.device) if mask is None else mask
    return torch.where(seen, bias, torch.finfo(dtype).min)
