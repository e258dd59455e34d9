"""Check that the weights of a loaded model and the weights in its files are the same.

transformers initialises weights that no file has with random values, and ignores weights in the files that the model
does not have; it lists both in a report. Those that the architecture explains are fine, all others are an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.system.paths import brief

_UNUSED = re.compile(
    # buffers that older releases of transformers saved, and that are recomputed from config.json
    r"(^|\.)((maybe_)?rotary(_emb)?\.(original_)?(inv_freq|cos_cached|sin_cached)|position_ids|decoder\.version"
    r"|attn\.(attention\.)?(masked_)?bias|attention\.(masked_)?bias|scale_mask_softmax\.causal_mask)$"
    # heads of other tasks, and encoders of images and sound: text does not use them
    r"|^(score|classifier|qa_outputs|multiple_choice_head|v_head|value_head|reward_head)\."
    r"|(^|\.)(vision_tower|vision_model|visual|audio_tower|mm_projector|multi_modal_projector|image_newline)(\.|$)"
    # extra layers and heads that predict several tokens at once
    r"|(^|\.)(mtp|mtp_layers|medusa_head)\."
)
"""Names of weights that a text decoder may ignore."""
_WRAPPERS = {
    "_orig_mod": "a compiled model",
    "module": "a wrapper that shares work among devices",
    "_fsdp_wrapped_module": "a model that FSDP had sharded",
    "_checkpoint_wrapped_module": "a model with checkpointed activations",
}
"""Wrapper modules of torch, whose names appear in the names of the weights."""
_ADAPTED = re.compile(r"^base_model\.model\.|(^|\.)(lora_\w+|base_layer|modules_to_save)\.")
_QUANTISED = re.compile(
    r"(^|[.:])(qweight|qzeros|g_idx|SCB|absmax|quant_map|quant_state\..*|weight_(scale|packed)\w*|qdata)$"
)


def judge(name: str, model: Any, layers: str, report: Mapping[str, Any]) -> None:
    """Check the report on a loaded model.

    Args:
        name: the model's, for the message.
        model: as transformers loaded it.
        layers: path of its list of layers.
        report: transformers' loading report.

    Raises:
        DlbenchError: weights are missing, superfluous or of another shape, and the architecture does not explain it.
    """
    missing = sorted(report["missing_keys"])
    strange = sorted(key for key in report["unexpected_keys"] if not _UNUSED.search(key))
    expected = list(model.state_dict())
    shapes = {key: f"{_shape(held)} instead of {_shape(wanted)}" for key, held, wanted in report["mismatched_keys"]}
    faults = []
    if missing:
        faults.append(f"{len(missing)} of its {len(expected)} weights are in none of its files ({_some(missing)})")
    if strange:
        faults.append(f"{len(strange)} weights in its files are none of the model's ({_some(strange)})")
    if shapes:
        faults.append(f"{len(shapes)} have another shape ({_some(f'{key}: {shapes[key]}' for key in sorted(shapes))})")
    if faults:
        advice = _advice(missing, strange, shapes, expected, layers)
        raise DlbenchError(f"cannot load model {brief(name)!r} whole: {' and '.join(faults)}; {advice}")


def _advice(
    missing: Sequence[str], strange: Sequence[str], shapes: Collection[str], expected: Iterable[str], layers: str
) -> str:
    """A probable cause, and what to do."""
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
    """Message where files and configuration have different numbers of layers; empty where they agree."""
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
    """Number of names in each layer."""
    numbers = (re.match(rf"{re.escape(layers)}\.(\d+)\.", key) for key in keys)
    return Counter(int(match[1]) for match in numbers if match)


def _some(names: Iterable[str], most: int = 3) -> str:
    """The first `most` names."""
    listed = [brief(name) for name in names]
    return ", ".join([*listed[:most], "…"] if len(listed) > most else listed)


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape)) or "a number"
