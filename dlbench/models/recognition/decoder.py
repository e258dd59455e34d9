"""Derive the family of a decoder: where its layers and their parts are, and what they take and return.

The list of layers is found in the structure of the model, the rest in what happens in one forward over a few tokens
(`Observation`). Nothing of it is believed for good: the engine proves it before it decodes (`dlbench.engine.proof`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from dlbench.models.families import FAMILIES, Family, KeyValueShape, resolve
from dlbench.models.recognition.linear_maps import is_linear
from dlbench.models.recognition.observation import KEYS, TOKENS, LayerTrace, Observation, Unrecognised

_T = TypeVar("_T")
_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_QUERY = re.compile(r"(^|_)(q|query|wq)(_|$)")
_MORE_THAN_QUERY = re.compile(r"(^|_)(k|v|kv|key|value)(_|$)")
_KNOWN = frozenset({"attention_mask", "position_ids", "position_embeddings", "alibi"})
"""Arguments of layers that the engine can make for past tokens."""
_FACTOR = re.compile(r"logit|head_multiplier")
"""Settings that may scale logits."""
_CLOSE = {torch.float32: 1e-4, torch.float64: 1e-9, torch.float16: 1e-2}
"""Largest difference between two computations of the same logits, relative to the largest; 4e-2 for other dtypes."""


def expected(config: Any, *, trust_remote_code: bool = False) -> Family:
    """What is known of a model's family before it is loaded, from an empty model: its row, or the path of its layers.

    Args:
        config: transformers' configuration of the model; of one with other parts, such as vision, the language model
            may be of a type of its own.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        Unrecognised: transformers has no language model of this type, or it has no list of layers with attention.
    """
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM.from_config
    try:
        with torch.device("meta"):
            model = make(config, trust_remote_code=trust_remote_code)
    except Exception as error:
        said = " ".join(str(error).split())
        if "Unrecognized configuration class" in said:
            raise Unrecognised("transformers has no language model of this type") from error
        raise Unrecognised(f"config.json gives no model ({type(error).__name__}: {said[:160]})") from error
    return FAMILIES.get(model.config.model_type) or Family(layers=_layers(model), head=())


def recognise(model: Any) -> Family:
    """Derive the family of a loaded model.

    Raises:
        Unrecognised: it has what the engine does not know; the message says what.
    """
    path = _layers(model)
    seen = Observation(model, path)
    attention = _one("attention", map(_attention, range(len(seen.layers)), seen.layers))
    _check_arguments(seen)
    mlp = _one("the feed-forward", (_feed_forward(seen, index, attention) for index in range(len(seen.layers))))
    fill, query = _projections(seen, attention)
    _check_width(model, seen)
    family = Family(
        layers=path,
        head=tuple(seen.after),
        attention=attention,
        mlp=mlp,
        fill=fill,
        query=query,
        inputs=tuple(seen.before),
        adds_residual=_adds_residual(seen, attention, mlp[-1]),
        returns_tuple=_one("what a layer returns", (trace.returns > 0 for trace in seen.layers)),
        reads_again=_reads_again(model),
        attention_outputs=_one("what attention returns", (t.outputs[attention] or 1 for t in seen.layers)),
        shared=tuple(dict.fromkeys(name for t in seen.layers for name, x in t.tensors() if _shared(x, seen.rows))),
        mask_hides=_mask_hides(seen.layers[0]),
        needs_rows=any(x.is_complex() for trace in seen.layers for _, x in trace.tensors()),
        key_values=tuple(_stored(layer, trace, query) for layer, trace in zip(seen.modules, seen.layers, strict=True)),
        expansions=_one("latent attention", (_expansions(trace) for trace in seen.layers)),
        recognised=True,
    )
    return _with_logits(family, model, seen)


def _layers(model: Any) -> str:
    """The path of the only list of decoder layers; the model may be empty.

    Raises:
        Unrecognised: there is none, or more than one.
    """
    depth = getattr(model.config.get_text_config(decoder=True), "num_hidden_layers", None)
    lists = [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and all(map(_has_attention, module))
    ]
    outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    if len(outer) > 1:
        raise Unrecognised(f"it has several lists of {depth} layers with attention: {', '.join(outer)}")
    if not outer:
        raise Unrecognised(f"it has no list of {depth} layers that all have attention")
    return str(outer[0])


def _has_attention(layer: nn.Module) -> bool:
    return any(_ATTENTION.search(type(module).__name__) for module in layer.modules())


def _one(what: str, values: Iterable[_T]) -> _T:
    """The only value.

    Raises:
        Unrecognised: there are several.
    """
    several = list(dict.fromkeys(values))
    if len(several) > 1:
        raise Unrecognised(f"{what} differs between its layers: {several[0]!r} and {several[1]!r}")
    return several[0]


def _attention(index: int, trace: LayerTrace) -> str:
    """The module of a layer within which it stores keys and values."""
    if not trace.stored:
        raise Unrecognised(f"layer {index} stores no keys and values of its own")
    if not trace.inside:
        raise Unrecognised(f"the attention of layer {index} is no module of its own")
    return trace.inside[0]


def _feed_forward(seen: Observation, index: int, attention: str) -> tuple[str, ...]:
    """The feed-forward of a layer: its module, or two linear maps in a row."""
    trace = seen.layers[index]
    rest = [path for path in trace.outer if path != attention]
    if len(trace.outer) != len(set(trace.outer)):
        raise Unrecognised(f"layer {index} runs one of {', '.join(sorted(set(trace.outer)))} several times")
    if len(rest) == 1:
        return (rest[0],)
    if len(rest) == 2 and all(is_linear(resolve(seen.modules[index], path)) for path in rest):
        return tuple(rest)
    raise Unrecognised(
        f"beside attention, layer {index} has {', '.join(rest) or 'nothing'} instead of one feed-forward"
    )


def _projections(seen: Observation, attention: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Projections that compute keys and values, and those that compute queries alone, of any layer."""
    paths = dict.fromkeys(path for trace in seen.layers for path in trace.earlier if path.startswith(f"{attention}."))
    for path in paths:
        for index, layer in enumerate(seen.modules):
            try:
                resolve(layer, path)
            except AttributeError:
                raise Unrecognised(f"layer {index} has no {path}, which other layers have") from None
    query = [
        path
        for path in paths
        if _QUERY.search(name := path.rpartition(".")[2])
        and not _MORE_THAN_QUERY.search(name)
        and all(is_linear(resolve(layer, path)) for layer in seen.modules)
    ]
    fill = tuple(path for path in paths if path not in query)
    if not fill:
        raise Unrecognised(f"no linear map in {attention} computes keys and values")
    return fill, tuple(query)


def _expansions(trace: LayerTrace) -> tuple[str, ...]:
    """Linear maps of a layer's attention that ran on every key, not on every new token."""
    attention = f"{trace.inside[0]}."
    return tuple(path for path, count in trace.later.items() if path.startswith(attention) and count == KEYS)


def _stored(layer: nn.Module, trace: LayerTrace, query: tuple[str, ...]) -> KeyValueShape:
    """What a layer stores of a token; where that is expanded again, widths of queries and outputs tell what is spent.

    Raises:
        Unrecognised: they cannot be told.
    """
    expansions, shape = _expansions(trace), trace.stored[0]
    if not expansions:
        return shape
    rest = [path for path in trace.later if path not in expansions and path.startswith(f"{trace.inside[0]}.")]
    if not query or not rest:
        raise Unrecognised(f"{', '.join(expansions)} expand what is stored, and the widths of its heads are unknown")
    width = resolve(layer, query[-1]).out_features + resolve(layer, rest[0]).weight.shape[-1]
    return replace(shape, flops=2 * width)


def _check_arguments(seen: Observation) -> None:
    """Check that layers take nothing for every token that the engine could not make for past tokens.

    Raises:
        Unrecognised: they do.
    """
    for index, trace in enumerate(seen.layers):
        for name, x in trace.tensors():
            if name not in _KNOWN and TOKENS in x.shape:
                raise Unrecognised(f"layer {index} takes {name}, an input of its own for every token")


def _check_width(model: Any, seen: Observation) -> None:
    width = getattr(model.config.get_text_config(decoder=True), "hidden_size", None)
    if width != seen.last.shape[-1] or seen.last.ndim != 3:
        raise Unrecognised(f"states have the shape {list(seen.last.shape)}, and the configuration says width {width}")


def _adds_residual(seen: Observation, attention: str, mlp: str) -> tuple[Literal["attention", "mlp"], ...]:
    """Which of attention and feed-forward take the residual."""

    def takes(path: str) -> bool:
        return "residual" in inspect.signature(resolve(seen.modules[0], path).forward).parameters

    parts: tuple[tuple[Literal["attention", "mlp"], str], ...] = (("attention", attention), ("mlp", mlp))
    return tuple(part for part, path in parts if takes(path))


def _reads_again(model: Any) -> bool:
    """Whether `generate` lets the model read a text again where longrope switches its angles.

    That is code of the model, and nothing else in transformers tells of it.
    """
    try:
        return "original_max_position_embeddings" in inspect.getsource(type(model).prepare_inputs_for_generation)
    except (OSError, TypeError):
        return False


def _shared(x: Tensor, rows: int) -> bool:
    """Whether a tensor has no dimension of rows, although its first one could be taken for it."""
    if not x.ndim or x.shape[0] in (1, rows):
        return False
    return x.ndim < 3 or x.shape[0] % rows != 0  # rows × heads


def _mask_hides(trace: LayerTrace) -> bool:
    """Whether a boolean mask is True where the first token would see the last one."""
    mask = trace.arguments.get("attention_mask")
    return isinstance(mask, Tensor) and mask.dtype == torch.bool and bool(mask[..., 0, -1].all())


@torch.inference_mode()
def _with_logits(family: Family, model: Any, seen: Observation) -> Family:
    """Add what the model does to the LM head's logits.

    Raises:
        Unrecognised: logits are not what the modules behind the layers compute from the last state, or are made from
            it in a way that is not known.
    """
    x = seen.last
    for path in family.head:
        x = resolve(model, path)(x)
    if not isinstance(x, Tensor) or not _same(x, seen.given[-1]):
        raise Unrecognised(f"more than {', '.join(family.head)} stands between its last layer and its logits")
    config = model.config.get_text_config(decoder=True)
    cap = getattr(config, "final_logit_softcapping", None)
    names = [n for n, value in vars(config).items() if _FACTOR.search(n) and isinstance(value, float) and value]
    scaled = [replace(family, logit_scale=n) for n in names] + [replace(family, logit_divisor=n) for n in names]
    for one in (family, *scaled):
        y = x * getattr(config, one.logit_scale) if one.logit_scale else x
        y = y / getattr(config, one.logit_divisor) if one.logit_divisor else y
        if _same(y if cap is None else torch.tanh(y / cap) * cap, seen.logits):
            return one
    raise Unrecognised("what it does to the logits of its LM head is none of scaling and soft cap")


def _same(x: Tensor, y: Any) -> bool:
    """Whether two computations gave the same logits, but for rounding."""
    if not isinstance(y, Tensor) or x.shape != y.shape:
        return False
    return bool((x - y).abs().max() <= _CLOSE.get(x.dtype, 4e-2) * y.abs().max())
