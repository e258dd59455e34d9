"""Whether a model that was loaded is what its files hold.

transformers gives weights that no file has random values, and passes over what the model has no place for; it tells
both in a report. Here that report is read: what the architecture explains is let pass, everything else is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.system.paths import brief

_UNUSED = re.compile(
    # buffers of older releases of transformers, which are made again from config.json
    r"(^|\.)((maybe_)?rotary(_emb)?\.(original_)?(inv_freq|cos_cached|sin_cached)|position_ids|decoder\.version"
    r"|attn\.(attention\.)?(masked_)?bias|attention\.(masked_)?bias|scale_mask_softmax\.causal_mask)$"
    # heads of other tasks, and what reads pictures and sound: a text goes past them
    r"|^(score|classifier|qa_outputs|multiple_choice_head|v_head|value_head|reward_head)\."
    r"|(^|\.)(vision_tower|vision_model|visual|audio_tower|mm_projector|multi_modal_projector|image_newline)(\.|$)"
    # layers and heads that foretell several tokens at once, beside the model's own
    r"|(^|\.)(mtp|mtp_layers|medusa_head)\."
)
"""Names that a decoder of text may leave unread."""
_WRAPPERS = {
    "_orig_mod": "a compiled model",
    "module": "a wrapper that shares work among devices",
    "_fsdp_wrapped_module": "a model that FSDP had sharded",
    "_checkpoint_wrapped_module": "a model with checkpointed activations",
}
"""Modules that torch puts around others, which then stand in the names of the weights."""
_ADAPTED = re.compile(r"^base_model\.model\.|(^|\.)(lora_\w+|base_layer|modules_to_save)\.")
_QUANTISED = re.compile(
    r"(^|[.:])(qweight|qzeros|g_idx|SCB|absmax|quant_map|quant_state\..*|weight_(scale|packed)\w*|qdata)$"
)


def judge(name: str, model: Any, layers: str, report: Mapping[str, Any]) -> None:
    """Refuse a model that is not what its files hold.

    Args:
        name: the model's, for the message.
        model: as transformers loaded it.
        layers: path of its list of layers.
        report: transformers' report of the loading.

    Raises:
        DlbenchError: weights are missing, have another shape, or have no place, and the architecture does not say why.
    """
    missing = sorted(report["missing_keys"])
    strange = sorted(key for key in report["unexpected_keys"] if not _UNUSED.search(key))
    expected = list(model.state_dict())
    shapes = {key: f"{_shape(held)} instead of {_shape(wanted)}" for key, held, wanted in report["mismatched_keys"]}
    found = []
    if missing:
        found.append(f"{len(missing)} of its {len(expected)} weights are in none of its files ({_some(missing)})")
    if strange:
        found.append(f"{len(strange)} weights in its files are none of the model's ({_some(strange)})")
    if shapes:
        found.append(f"{len(shapes)} have another shape ({_some(f'{key}: {shapes[key]}' for key in sorted(shapes))})")
    if found:
        advice = _advice(missing, strange, shapes, expected, layers)
        raise DlbenchError(f"cannot load model {brief(name)!r} whole: {' and '.join(found)}; {advice}")


def _advice(
    missing: Sequence[str], strange: Sequence[str], shapes: Collection[str], expected: Iterable[str], layers: str
) -> str:
    """Why that may be, and what to do."""
    parts = {part for key in strange for part in key.split(".")}
    if wrapper := next((w for w in _WRAPPERS if w in parts), None):
        return f"they were saved from {_WRAPPERS[wrapper]}, hence {wrapper!r}: save again from the module inside"
    if any(_ADAPTED.search(key) for key in strange):
        return "they are an adapter's: merge it into its base model (PEFT: merge_and_unload), and give the result"
    if any(_QUANTISED.search(key) for key in strange):
        return "they are quantised, and config.json does not say how: give the plain model, or its own config.json"
    if missing and strange and not any("." in key for key in strange):
        return f"the weights lie one level down, under {_some(strange)}: save what lies there by save_pretrained"
    if depths := _depths(missing, strange, expected, layers):
        return depths
    if missing == ["lm_head.weight"] and not strange and not shapes:
        return (
            "it has no head to write with: give one, or, where the embedding is the head, put "
            '"tie_word_embeddings": true into config.json'
        )
    if shapes:
        return "config.json, or one of the files, is another model's: fetch both again"
    return "files and config.json do not belong together, or are incomplete: fetch or copy them again"


def _depths(missing: Iterable[str], strange: Iterable[str], expected: Iterable[str], layers: str) -> str:
    """Say so where files and configuration have different numbers of layers."""
    whole, lost, beyond = (_by_layer(keys, layers) for keys in (expected, missing, strange))
    depth = held = max(whole, default=-1) + 1
    if beyond and max(beyond) >= depth:
        held = max(beyond) + 1
    while 0 < held <= depth and lost[held - 1] == whole[held - 1]:
        held -= 1
    if held in (0, depth):
        return ""
    return f"config.json says {depth} layers, and the files hold {held}: correct the one that is wrong"


def _by_layer(keys: Iterable[str], layers: str) -> Counter[int]:
    """How many names each layer has."""
    numbers = (re.match(rf"{re.escape(layers)}\.(\d+)\.", key) for key in keys)
    return Counter(int(found[1]) for found in numbers if found)


def _some(names: Iterable[str], most: int = 3) -> str:
    """The first names of several."""
    listed = [brief(name) for name in names]
    return ", ".join([*listed[:most], "…"] if len(listed) > most else listed)


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a number"
