"""Load a backbone, and know its family: where its layers, norm and projections are."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlbench.errors import DlbenchError

EMBEDDED: dict[str, str] = {"nano": "nano", "nano-half": "nano"}
"""Backbones that ship with the package -> the base they are held against."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Family:
    """Where one family of stock transformers decoders keeps what the engine needs; paths are dotted attributes."""

    layers: str
    """The list of decoder layers."""
    head: tuple[str, ...]
    """Modules that turn the last state into logits, in order; those that are None are passed over."""
    fill: tuple[str, ...]
    """Projections of one layer that must run for its keys and values."""
    query: str | None
    """A separate query projection of one layer, not needed for keys and values."""
    inputs: tuple[str, ...] = ()
    """Projections between the embedding and the first layer."""


_LLAMA = Family(
    layers="model.layers",
    head=("model.norm", "lm_head"),
    fill=("self_attn.k_proj", "self_attn.v_proj"),
    query="self_attn.q_proj",
)
FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "opt": Family(
        layers="model.decoder.layers",
        head=("model.decoder.final_layer_norm", "model.decoder.project_out", "lm_head"),
        fill=("self_attn.k_proj", "self_attn.v_proj"),
        query="self_attn.q_proj",
        inputs=("model.decoder.project_in",),
    ),
    "gpt2": Family(
        layers="transformer.h",
        head=("transformer.ln_f", "lm_head"),
        fill=("attn.c_attn",),
        query=None,
    ),
}


@dataclass
class Backbone:
    """A loaded decoder, frozen and in evaluation mode."""

    name: str
    model: Any
    tokenizer: Any
    family: Family
    dtype: str
    sha256: str
    base_sha256: str
    source: str = ""
    """What `load` was asked for."""

    @property
    def kind(self) -> str:
        """The transformers model type, such as "llama"."""
        return str(self.model.config.model_type)

    @property
    def layers(self) -> nn.ModuleList:
        found = resolve(self.model, self.family.layers)
        assert isinstance(found, nn.ModuleList)
        return found

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def context(self) -> int:
        """Most positions that the model was built for."""
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 30))

    @property
    def eos(self) -> frozenset[int]:
        """Token ids that end a text."""
        ids = self.model.generation_config.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id if self.tokenizer is not None else None
        return frozenset(ids if isinstance(ids, list) else [] if ids is None else [ids])


def resolve(module: Any, path: str) -> Any:
    """Follow dotted attributes."""
    for name in path.split("."):
        module = getattr(module, name)
    return module


def wrap(
    model: Any, tokenizer: Any = None, *, name: str = "local", sha256: str = "", base_sha256: str = ""
) -> Backbone:
    """Make a Backbone of a loaded transformers model.

    Raises:
        DlbenchError: the architecture is not supported.
    """
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise DlbenchError(
            f"model {name!r} is of type {kind!r}; supported are {', '.join(sorted(FAMILIES))}. "
            "A family is one row of FAMILIES in dlbench/backbones.py."
        )
    model.eval().requires_grad_(False)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return Backbone(name, model, tokenizer, FAMILIES[kind], dtype, sha256, base_sha256 or sha256)


def embedded_folder(name: str) -> Path:
    """Folder of a backbone that ships with the package."""
    return Path(str(files("dlbench.tasks.nano"))) / "weights" / name


def load(name: str, *, device: str = "cpu", dtype: str = "float32", attention: str | None = None) -> Backbone:
    """Load an embedded backbone, a local folder or a hub model, with its tokenizer.

    Args:
        name: "nano", "nano-half", a folder, or a hub id such as "facebook/opt-125m" (with "@revision" if wanted).
        device: a torch device.
        dtype: a key of DTYPES.
        attention: transformers' attention implementation; None takes the library's choice.

    Raises:
        DlbenchError: not found, unreadable or unsupported; the message says what to do.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    folder = embedded_folder(name) if name in EMBEDDED else Path(name)
    source, _, revision = (str(folder), "", "") if folder.is_dir() else name.partition("@")
    if name in EMBEDDED and not folder.is_dir():
        raise DlbenchError(f"the weights of {name!r} are missing from this installation: {folder}; reinstall dlbench")
    options: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        kind = AutoConfig.from_pretrained(source, **options).model_type
        if kind not in FAMILIES:
            raise DlbenchError(
                f"model {name!r} is of type {kind!r}; supported are {', '.join(sorted(FAMILIES))}. "
                "A family is one row of FAMILIES in dlbench/backbones.py."
            )
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
        model = AutoModelForCausalLM.from_pretrained(
            source, dtype=DTYPES[dtype], attn_implementation=attention, **options
        )
    except DlbenchError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = (
            "its files are damaged or incomplete: fetch or copy them again"
            if folder.is_dir()
            else f"give {', '.join(sorted(EMBEDDED))}, a folder, or a hub name (needs a network or a filled cache)"
        )
        raise DlbenchError(f"cannot load model {name!r}: {reason[:300]}; {hint}") from error
    digest = fingerprint(folder if folder.is_dir() else Path(_snapshot(source, revision)))
    base = digest
    if name in EMBEDDED and EMBEDDED[name] != name:
        base = fingerprint(embedded_folder(EMBEDDED[name]))
    elif (card := folder / "dlbench.json").is_file():
        base = str(json.loads(card.read_text()).get("base_sha256", digest))
    placed: Any = model
    shown = folder.name if folder.is_dir() else name
    backbone = wrap(placed.to(device), tokenizer, name=shown, sha256=digest, base_sha256=base)
    backbone.source = name
    if not all(bool(torch.isfinite(p).all()) for p in backbone.model.parameters()):
        raise DlbenchError(f"model {name!r} holds weights that are not finite: its files are damaged; fetch them again")
    return backbone


def fingerprint(folder: Path) -> str:
    """sha256 over the weight, configuration and tokenizer files of a model folder, by name and content.

    Logs, curves and cards beside them do not change what a model writes, and do not count.
    """
    digest = hashlib.sha256()
    settings = re.compile(
        r"config\.json|generation_config\.json|tokenizer.*|.*vocab.*|merges\.txt|.*tokens.*\.json|chat_template.*|.*\.model"
    )
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin") or settings.fullmatch(p.name)
    ):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _snapshot(source: str, revision: str) -> str:
    from huggingface_hub import snapshot_download

    return str(snapshot_download(source, revision=revision or None, local_files_only=True))
