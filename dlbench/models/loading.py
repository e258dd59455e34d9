"""Load a backbone with its tokenizer: an embedded one, a local folder, or a model of the hub."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path

import torch

from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone, wrap
from dlbench.models.catalog import DTYPES, INT8
from dlbench.models.checkpoint.files import read_json
from dlbench.models.checkpoint.hashes import fingerprint, weights_sha256
from dlbench.models.checkpoint.reader import ModelSource, Placement, device_map_of, read
from dlbench.models.quantization import to_int8
from dlbench.system.paths import model_folder, record_name

EMBEDDED: dict[str, str] = {"nano": "nano", "nano-half": "nano"}
"""Backbones that ship with the package → the base that they are compared with."""

TORCH_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in DTYPES}


def of_embedded(backbone: Backbone) -> bool:
    """Return whether a backbone is embedded, or was made from one that is."""
    return backbone.base_sha256 in {fingerprint(embedded_folder(base)) for base in set(EMBEDDED.values())}


def embedded_folder(name: str) -> Path:
    """Folder of a backbone that ships with the package."""
    return Path(str(files("dlbench.tasks.nano"))) / "weights" / name


def load(
    name: str,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    attention: str | None = None,
    device_map: str | None = None,
    trust_remote_code: bool = False,
) -> Backbone:
    """Load a backbone with its tokenizer.

    Args:
        name: "nano", "nano-half", a folder, or a hub id such as "facebook/opt-125m" (with "@revision" if wanted).
        device: a torch device.
        dtype: one of DTYPES; or INT8, which gives a backbone of its own, quantised from the model in `plain_dtype`.
        attention: transformers' attention implementation; None takes the library's default.
        device_map: how transformers spreads the layers ("auto" and the like, or a JSON file); None: all on `device`.
        trust_remote_code: whether code that comes with a model may run.

    Raises:
        DlbenchError: not found, unreadable or unsupported; the message says what to do.
    """
    folder = _folder(name)
    source, _, revision = name.partition("@") if folder is None else (str(folder), "", "")
    if device_map is not None and dtype == INT8:
        raise DlbenchError("int8 keeps all layers on one device: leave --device-map away, or take another dtype")
    tokenizer, model, files = read(
        ModelSource(name, source, revision, trust_remote_code),
        Placement(
            device,
            TORCH_DTYPES[plain_dtype(dtype, device)],
            attention,
            None if device_map is None else device_map_of(device_map),
        ),
    )
    digest = fingerprint(files, code=trust_remote_code)
    base = _base_sha256(name, folder, digest)
    backbone = wrap(model, tokenizer, name=record_name(folder or name), sha256=digest, base_sha256=base)
    backbone.source = name
    backbone.weights_sha256 = weights_sha256(model, digest)
    backbone.spread = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
    if dtype == INT8:
        to_int8(backbone.layers)
        backbone.dtype = INT8
        backbone.sha256 = hashlib.sha256(f"{digest} {INT8}".encode()).hexdigest()
    return backbone


def _folder(name: str) -> Path | None:
    """The folder that holds a model; None for a hub id.

    Raises:
        DlbenchError: an embedded model is not installed, or the name cannot be a model's.
    """
    if name not in EMBEDDED:
        return model_folder(name)
    folder = embedded_folder(name)
    if not folder.is_dir():
        raise DlbenchError(f"the weights of {name!r} are missing from this installation: {folder}; reinstall dlbench")
    return folder


def _base_sha256(name: str, folder: Path | None, digest: str) -> str:
    """Hash of the model that this one was made from, if any, else its own.

    Args:
        name: the model that was asked for.
        folder: its folder; None for a hub id.
        digest: its own hash.

    Raises:
        DlbenchError: the card of a trained model is damaged.
    """
    if EMBEDDED.get(name, name) != name:
        return fingerprint(embedded_folder(EMBEDDED[name]))
    if folder is None:
        return digest
    base = read_json(folder / "dlbench.json", {}).get("base_sha256", digest)
    if not re.fullmatch(r"[0-9a-f]{64}", str(base)):
        raise DlbenchError(f"{folder / 'dlbench.json'} is damaged: its base_sha256 is no sha256; fetch it again")
    return str(base)


def plain_dtype(dtype: str, device: str) -> str:
    """The floating-point dtype that a model is loaded in: for INT8, float32 on a CPU and bfloat16 elsewhere."""
    if dtype != INT8:
        return dtype
    return "float32" if device == "cpu" else "bfloat16"
