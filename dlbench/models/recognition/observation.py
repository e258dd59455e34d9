"""Watch one forward of a model over a few tokens: which modules run in which order, and what layers take and return.

Shape letters: R rows, T tokens, W model width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from dlbench.models.families import KeyValueShape, resolve
from dlbench.models.recognition.linear_maps import is_linear

TOKENS = 7
"""T; no size that models have."""
_PAST = 2
"""Tokens that are read before, so that there are more keys than tokens."""
KEYS = _PAST + TOKENS
_ROWS = (3, 5, 11, 13)
"""The first of these that divides no number of heads is R, so that a first dimension tells rows from heads."""


class Unrecognised(Exception):
    """The structure of a model is not one that the engine knows; the message says why, in one line."""


@dataclass
class LayerTrace:
    """What one layer did. Modules are named by their path within the layer."""

    arguments: dict[str, Any] = field(default_factory=dict)
    """Its arguments, without the state that enters."""
    returns: int = -1
    """How many values it returned as a tuple; 0 for the state alone, -1 before it has run."""
    outer: list[str] = field(default_factory=list)
    """Modules with matrices that it ran itself, in order."""
    outputs: dict[str, int] = field(default_factory=dict)
    """How many values each module returned as a tuple; 0 for one tensor."""
    stored: list[KeyValueShape] = field(default_factory=list)
    """Keys and values that it stored."""
    inside: tuple[str, ...] = ()
    """Modules within which it stored them, the outermost first."""
    earlier: tuple[str, ...] = ()
    """Linear maps that had run by then."""
    later: dict[str, int] = field(default_factory=dict)
    """Linear maps that ran after that, and how many tokens or keys each ran on."""

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor among its arguments, with the argument's name."""
        for name, given in self.arguments.items():
            yield from ((name, x) for x in _tensors(given))


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, (tuple, list)):
        for x in given:
            yield from _tensors(x)
    elif isinstance(given, Mapping):
        yield from _tensors(list(given.values()))


class _Watch(DynamicCache):
    """A stock cache that tells which layer stores what."""

    told: Callable[[int, Tensor, Tensor], None] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        if self.told is not None:
            self.told(layer_idx, key_states, value_states)
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


def _cache(model: Any) -> _Watch:
    try:
        return _Watch(config=model.config)
    except Exception as error:
        raise Unrecognised(f"transformers makes no cache for it ({type(error).__name__})") from error


@final
class Observation:
    """What was seen in one forward."""

    def __init__(self, model: Any, path: str) -> None:
        """Run a few tokens through a model, called as the engine calls it; the model stays as it was.

        Args:
            model: any.
            path: of its list of layers.

        Raises:
            Unrecognised: it cannot be called so, or it does not run its layers one after the other, once each.
        """
        self.modules: nn.ModuleList = resolve(model, path)
        self.layers = [LayerTrace() for _ in self.modules]
        self.before: list[str] = []
        """Modules with linear maps between the embedding and the first layer."""
        self.after: list[str] = []
        """Modules from the state that left the last layer to the logits, in order."""
        self.given: list[Any] = []
        """What each of these returned."""
        self.last: Any = None
        """What left the last layer: [R, T, W]."""
        self.rows = _rows(model.config.get_text_config(decoder=True))
        """R."""
        self._running, self._stack, self._linear = -1, list[str](), list[str]()
        training = model.training
        with ExitStack() as stack:
            stack.callback(model.train, training)
            model.eval()
            cache = _cache(model)
            self._forward(model, cache, 0, _PAST)
            cache.told = self._stores
            self._watch_layers(stack)
            self._watch_others(model, path, stack)
            self.logits = self._forward(model, cache, _PAST, _PAST + TOKENS)
        if any(trace.returns < 0 for trace in self.layers) or not self.after:
            raise Unrecognised("its layers or its head did not run")

    @torch.inference_mode()
    def _forward(self, model: Any, cache: _Watch, begin: int, end: int) -> Tensor:
        """Run the tokens at positions `begin` to `end`, called as the engine calls the model; returns their logits."""
        try:
            embedding = model.get_input_embeddings()
            positions = torch.arange(begin, end, device=next(embedding.parameters()).device).expand(self.rows, -1)
            steps = torch.arange(self.rows, device=positions.device)[:, None] * (_PAST + TOKENS)
            out = model(
                input_ids=(positions + steps) % min(29, len(embedding.weight)),
                attention_mask=None,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=end - begin,
            )
            return out.logits  # type: ignore[no-any-return]
        except Unrecognised:
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:160]
            raise Unrecognised(f"a forward over a few tokens fails ({type(error).__name__}: {said})") from error

    def _watch_layers(self, stack: ExitStack) -> None:
        for index, layer in enumerate(self.modules):
            names = list(inspect.signature(layer.forward).parameters)[1:]
            for path, module in layer.named_modules():
                if not path:
                    continue
                begin, end = partial(self._begin, index, path), partial(self._end, index, path)
                stack.callback(module.register_forward_pre_hook(begin).remove)
                stack.callback(module.register_forward_hook(end).remove)
            begin_layer, end_layer = partial(self._begin_layer, index, names), partial(self._end_layer, index)
            stack.callback(layer.register_forward_pre_hook(begin_layer, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(end_layer).remove)

    def _watch_others(self, model: Any, path: str, stack: ExitStack) -> None:
        """Watch the modules beside the list of layers, and beside each module that contains it."""
        parts = path.split(".")
        for depth, inner in enumerate(parts):
            around = ".".join(parts[:depth])
            for name, module in (resolve(model, around) if around else model).named_children():
                if name != inner:
                    ran = partial(self._other, f"{around}.{name}".lstrip("."))
                    stack.callback(module.register_forward_hook(ran).remove)

    def _begin_layer(self, index: int, names: list[str], _: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if self.layers[index].returns >= 0 or index != self._running + 1:
            raise Unrecognised(f"layer {index} runs several times, or before the layers below it")
        self._running = index
        self.layers[index].arguments = {**dict(zip(names, args[1:], strict=False)), **kwargs}

    def _end_layer(self, index: int, _: Any, args: Any, out: Any) -> None:
        self.layers[index].returns = len(out) if isinstance(out, tuple) else 0
        self.last = out[0] if isinstance(out, tuple) else out
        self._linear = []

    def _begin(self, index: int, path: str, module: nn.Module, args: Any) -> None:
        trace = self.layers[index]
        if not self._stack and (any(p.ndim > 1 for p in module.parameters()) or any(map(is_linear, module.modules()))):
            trace.outer.append(path)
        self._stack.append(path)

    def _end(self, index: int, path: str, module: nn.Module, args: Any, out: Any) -> None:
        while self._stack and self._stack.pop() != path:
            pass
        self.layers[index].outputs[path] = len(out) if isinstance(out, tuple) else 0
        if is_linear(module):
            self._linear.append(path)
            if self.layers[index].stored:
                self.layers[index].later[path] = args[0].shape[-2]

    def _stores(self, index: int, keys: Tensor, values: Tensor) -> None:
        if index != self._running or self.layers[index].stored:
            raise Unrecognised(f"layer {self._running} stores keys and values for layer {index}, or several times")
        if keys.ndim != 4 or values.ndim != 4 or keys.shape[1] != values.shape[1]:
            raise Unrecognised(f"layer {index} stores {list(keys.shape)} and {list(values.shape)} as keys and values")
        trace = self.layers[index]
        trace.stored.append(KeyValueShape(keys.shape[1], keys.shape[-1], values.shape[-1]))
        trace.inside, trace.earlier = tuple(self._stack), tuple(self._linear)

    def _other(self, path: str, module: nn.Module, args: Any, out: Any) -> None:
        """Note that a module beside the layers has run."""
        linear = any(map(is_linear, module.modules()))
        if self.layers[-1].returns >= 0:
            self.after.append(path)
            self.given.append(out)
        elif linear and self._running < 0:
            self.before.append(path)
        elif linear:
            raise Unrecognised(f"{path} runs between its layers")


def _rows(config: Any) -> int:
    counts = [count for name, count in config.to_dict().items() if "head" in name and isinstance(count, int) and count]
    return next((rows for rows in _ROWS if all(count % rows for count in counts)), _ROWS[-1])
