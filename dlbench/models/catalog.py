"""Names that options take: models, families, dtypes, devices and device maps. Imports without torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dlbench.errors import DlbenchError
from dlbench.models.families import FAMILIES
from dlbench.models.packaged import PACKAGED, find
from dlbench.system.paths import brief, model_path
from dlbench.terminal.suggest import unknown

MODELS = {
    "nano": "the embedded backbone of the nano suite",
    "nano-half": "the same with half of the layers, trained on the same tokens",
}
"""Models that ship with dlbench."""
DTYPES = ("float32", "bfloat16", "float16")
INT8 = "int8"
"""Weight-only int8 of the decoder layers; needs the extra `dlbench[int8]`."""
AUTO = "auto"
"""The checkpoint's own dtype; on a CUDA GPU bfloat16 for a float32 checkpoint."""
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


@dataclass(frozen=True)
class ModelInfo:
    """One line of `dlbench list models`: a model that dlbench ships or fetches, or a family that it can load."""

    name: str
    """Name of the model, or transformers' name of the family (`model_type` in config.json)."""
    kind: Literal["embedded", "packaged", "family"]
    about: str
    give: str
    """The option of `dlbench run` that selects it."""
    dtypes: tuple[str, ...]


def list_models() -> list[ModelInfo]:
    """The embedded models, those that can be prefetched, then every supported family by name."""
    dtypes = (*DTYPES, INT8, AUTO)
    embedded = [ModelInfo(name, "embedded", about, f"--model {name}", dtypes) for name, about in MODELS.items()]
    embedded += [ModelInfo(m.name, "packaged", m.about, f"--model {m.name}", dtypes) for m in PACKAGED.values()]
    about, give = "stock transformers decoders of this model_type", "--model FOLDER, --model ORG/NAME[@REVISION]"
    return embedded + [ModelInfo(name, "family", about, give, dtypes) for name in sorted(FAMILIES)]


def check_device(device: str) -> None:
    """Check the name of a device, not whether this machine has it.

    Raises:
        DlbenchError: there is no such device.
    """
    if not _DEVICE.fullmatch(device):
        raise unknown("device", device, ("auto", "cpu", "cuda", "cuda:0", "mps"))


def resolve_device(device: str) -> str:
    """Name the torch device; `auto` takes an accelerator where there is one.

    Raises:
        DlbenchError: this machine has no such device.
    """
    import torch

    available = ["cpu"]
    if torch.cuda.is_available():
        available = [f"cuda:{i}" for i in range(torch.cuda.device_count())] + available
    elif torch.backends.mps.is_available():
        available = ["mps", *available]
    if device == "auto":
        return available[0]
    wanted = "cuda:0" if device == "cuda" else device
    if wanted not in available:
        raise DlbenchError(f"device {device!r} is not on this machine: there is {', '.join(available)}")
    return wanted


def check_model(name: str, data_dir: str | None = None) -> None:
    """Check the name of a model, not whether a hub has it.

    Args:
        name: as `--model` was given it.
        data_dir: folder that prefetched models are looked for in, before the default one.

    Raises:
        DlbenchError: it is a model that has yet to be prefetched, or no embedded model, no folder, and cannot be a hub
            name.
    """
    if not name:
        raise DlbenchError("a model without a name: see `dlbench list models`")
    if name in PACKAGED:
        find(name, data_dir)
        return
    # Any other name may be a hub name, which only the hub or its cache can tell. But a path is no hub name, and a bare
    # name like an embedded one is a typo.
    if name in MODELS or model_path(name) is not None:
        return
    if Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise DlbenchError(f"no model folder {brief(name)}: see `dlbench list models`, or give a hub name")
    if "/" not in name and name.lower().startswith("nano"):
        raise unknown("model", name, MODELS, see="`dlbench list models`")
