"""Load a backbone with its tokenizer: an embedded or prefetched one, a folder, a file, or a model of the hub."""

from __future__ import annotations

import hashlib
import re
from contextlib import nullcontext
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone, wrap
from dlbench.models.catalog import AUTO, DTYPES, INT8
from dlbench.models.checkpoint.adapter import Adapter, adapter_of, merge
from dlbench.models.checkpoint.files import FileError, read_json, weight_files
from dlbench.models.checkpoint.gguf_file import only_gguf, parsed_once
from dlbench.models.checkpoint.hashes import fingerprint, weights_sha256
from dlbench.models.checkpoint.load_errors import cannot
from dlbench.models.checkpoint.quantised import settings_of
from dlbench.models.checkpoint.reader import check_finite, device_map_of, read, read_tokenizer
from dlbench.models.checkpoint.source import Loaded, ModelSource, Placement
from dlbench.models.packaged import PACKAGED, find, verify
from dlbench.models.quantization import to_int8
from dlbench.system.paths import model_path, record_name

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
    data_dir: str | None = None,
) -> Backbone:
    """Load a backbone with its tokenizer.

    Args:
        name: "nano", "nano-half", a prefetched model such as "smollm2", a folder (of a model, or of a PEFT adapter), a
            GGUF file, or a hub id such as "facebook/opt-125m" (with "@revision" if wanted).
        device: a torch device.
        dtype: one of DTYPES; AUTO, the checkpoint's own (bfloat16 for float32 on a CUDA GPU); or INT8, which gives a
            backbone of its own, quantised from the model in `plain_dtype`.
        attention: transformers' attention implementation; None takes the library's default.
        device_map: how transformers spreads the layers ("auto" and the like, or a JSON file); None: all on `device`.
        trust_remote_code: whether code that comes with a model may run.
        data_dir: folder that prefetched models are looked for in, before the default one.

    Raises:
        DlbenchError: not found, unreadable or unsupported; the message says what to do.
    """
    if device_map is not None and dtype == INT8:
        raise DlbenchError("int8 keeps all layers on one device: leave --device-map away, or take another dtype")
    path = locate(name, data_dir)
    source = _source(name, path, trust_remote_code)
    placement = Placement(
        device,
        None if dtype == AUTO else TORCH_DTYPES[plain_dtype(dtype, device)],
        attention,
        None if device_map is None else device_map_of(device_map),
    )
    adapter = adapter_of(source)
    loaded, digest = (
        _plain_model(source, placement) if adapter is None else _adapted(adapter, placement, source, data_dir)
    )
    if dtype == INT8 and settings_of(loaded.model.config) is not None:
        raise DlbenchError(f"model {name!r} is quantised already ({loaded.quantization}): leave --dtype int8 away")
    model = loaded.model
    base = _base_sha256(name, path, digest)
    backbone = wrap(
        model,
        loaded.tokenizer,
        name=name if name in PACKAGED else record_name(path or name),
        sha256=digest,
        base_sha256=base,
    )
    backbone.source = name
    backbone.stored_dtype, backbone.quantization = loaded.stored, loaded.quantization
    backbone.adapter_of = "" if adapter is None else record_name(locate(adapter.base, data_dir) or adapter.base)
    backbone.weights_sha256 = weights_sha256(model, digest)
    backbone.spread = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
    if dtype == INT8:
        to_int8(backbone.layers)
        backbone.dtype = INT8
        backbone.sha256 = hashlib.sha256(f"{digest} {INT8}".encode()).hexdigest()
    return backbone


def locate(name: str, data_dir: str | None = None) -> Path | None:
    """The folder or GGUF file that holds a model; None for a hub id.

    Args:
        name: as `load` takes it.
        data_dir: folder that prefetched models are looked for in, before the default one.

    Raises:
        DlbenchError: an embedded model is not installed, a prefetched one is not there or is not what it should be, or
            the name cannot be a model's.
    """
    if name in PACKAGED:
        path = find(name, data_dir)
        verify(name, path)
        return path
    if name not in EMBEDDED:
        return model_path(name)
    folder = embedded_folder(name)
    if not folder.is_dir():
        raise DlbenchError(f"the weights of {name!r} are missing from this installation: {folder}; reinstall dlbench")
    return folder


def _source(name: str, path: Path | None, trust_remote_code: bool) -> ModelSource:
    """Where transformers finds a model.

    Args:
        name: the model, as the user gave it.
        path: its folder or GGUF file; None for a hub id.
        trust_remote_code: whether code that comes with it may run.

    Raises:
        DlbenchError: its folder holds several models, or an index that cannot be read.
    """
    if path is None:
        location, _, revision = name.partition("@")
        return ModelSource(name, location, revision, trust_remote_code)
    try:
        gguf = path if path.is_file() else None if weight_files(path) else only_gguf(path)
    except FileError as error:
        raise DlbenchError(cannot(name, str(error))) from error
    return ModelSource(name, str(path), "", trust_remote_code, gguf)


def _plain_model(source: ModelSource, placement: Placement) -> tuple[Loaded, str]:
    """A model that is no adapter, and the hash of its files."""
    loaded = read(source, placement)
    return loaded, fingerprint(loaded.files, code=source.trust_remote_code)


def _adapted(adapter: Adapter, placement: Placement, source: ModelSource, data_dir: str | None) -> tuple[Loaded, str]:
    """An adapter merged into its base, with the adapter's own tokenizer where it has one, and a hash of both.

    Raises:
        DlbenchError: the base cannot be loaded, or the adapter does not fit it.
    """
    if placement.device_map is not None:
        raise DlbenchError(f"model {source.name!r} is an adapter, which --device-map does not go with: merge it first")
    place = locate(adapter.base, data_dir)
    base = _source(adapter.base, place, source.trust_remote_code)
    if adapter_of(base) is not None:
        raise DlbenchError(f"model {source.name!r} is an adapter of an adapter, {base.name!r}: merge that one first")
    try:
        loaded, digest = _plain_model(base, placement)
    except DlbenchError as error:
        if place is not None:
            raise
        raise adapter.without_base(f"which is no folder here, and {error}") from error
    model = merge(loaded.model, adapter, placement.device, trust_remote_code=source.trust_remote_code)
    check_finite(source.name, model)
    own = ModelSource(source.name, str(adapter.folder), "", source.trust_remote_code)
    tokenizer = read_tokenizer(own) if adapter.has_tokenizer() else loaded.tokenizer
    return replace(loaded, model=model, tokenizer=tokenizer), adapter.sha256(digest)


def _base_sha256(name: str, folder: Path | None, digest: str) -> str:
    """Hash of the model that this one was made from, if any, else its own.

    Args:
        name: the model that was asked for.
        folder: its folder or GGUF file; None for a hub id.
        digest: its own hash.

    Raises:
        DlbenchError: the card of a trained model is damaged.
    """
    if EMBEDDED.get(name, name) != name:
        return fingerprint(embedded_folder(EMBEDDED[name]))
    if folder is None or folder.is_file():
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


def settled_dtype(dtype: str | None, name: str, device: str) -> str:
    """The dtype that a model is asked for in.

    Args:
        dtype: as the user gave it; None takes AUTO on a CUDA GPU and float32 elsewhere. The embedded models, whose fits
            are made in float32, stay in it.
        name: the model's.
        device: a torch device.
    """
    if dtype is not None:
        return dtype
    return AUTO if device.startswith("cuda") and name not in EMBEDDED else "float32"


def stored_config(name: str, data_dir: str | None = None) -> Any:
    """Read the configuration of a model that is not loaded; of an adapter, that of its base.

    Args:
        name: as `load` takes it.
        data_dir: folder that prefetched models are looked for in, before the default one.

    Raises:
        DlbenchError: the model is not there.
    """
    from transformers import AutoConfig

    source = _source(name, locate(name, data_dir), False)
    if (adapter := adapter_of(source)) is not None:
        return stored_config(adapter.base, data_dir)
    with source.alone() as only, nullcontext() if source.gguf is None else parsed_once():
        return AutoConfig.from_pretrained(only.location, **only.at)
