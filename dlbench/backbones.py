"""Load a backbone, and know its family: where its layers, norm and projections are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlbench.errors import DlbenchError
from dlbench.families import FAMILIES, Family, resolve, unsupported
from dlbench.memory import ran_out
from dlbench.quantise import quiet, to_int8

EMBEDDED: dict[str, str] = {"nano": "nano", "nano-half": "nano"}
"""Backbones that ship with the package -> the base they are held against."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INT8 = "int8"
"""Weight-only int8; see `dlbench.quantise`."""


@dataclass
class Backbone:
    """A loaded decoder, frozen and in evaluation mode."""

    name: str
    model: Any
    tokenizer: Any
    family: Family
    dtype: str
    """Of the weights: a key of DTYPES, or INT8."""
    sha256: str
    base_sha256: str
    source: str = ""
    """What `load` was asked for."""
    spread: bool = False
    """Whether the layers stand on several devices, or wait on disk until they run."""

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
        """Where token ids go."""
        return self.place(self.model.get_input_embeddings())

    def place(self, module: nn.Module) -> torch.device:
        """The device that a module runs on; weights that wait elsewhere are brought there by accelerate's hook."""
        hook = getattr(module, "_hf_hook", None)
        if (device := getattr(hook, "execution_device", None)) is not None:
            return torch.device(device)
        return next(module.parameters()).device

    @property
    def context(self) -> int:
        """Most positions that the model was built for.

        Under dynamic scaling of rotary angles the configuration names those of the training, which a factor stretches.
        """
        config = self.model.config
        given = getattr(config, "rope_parameters", None) or {}
        several = [x for x in given.values() if isinstance(x, dict)] or [given]
        stretched = max(float(x["factor"]) if x.get("rope_type") == "dynamic" else 1.0 for x in several)
        return int(getattr(config, "max_position_embeddings", 1 << 30) * stretched)

    @property
    def id(self) -> str:
        """Tells the backbones of a run apart."""
        return f"{self.source} {self.dtype}"

    @property
    def precision(self) -> str:
        """Dtype of states, keys and values: that of the weights, unless these are int8."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def cache_bytes(self) -> int:
        """Bytes of one position's keys and values in one layer."""
        config = self.model.config
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        kept = getattr(config, "num_key_value_heads", None) or heads
        if getattr(config, "multi_query", False) and not config.new_decoder_architecture:  # Falcon, the first ones
            kept = 1
        return int(2 * kept * width * next(self.model.parameters()).element_size())

    @property
    def start(self) -> list[int]:
        """What stands before a text without a context: the begin-of-text token, or else that which ends a text."""
        begin = self.tokenizer.bos_token_id
        return [begin if begin is not None else self.tokenizer.eos_token_id]

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, begun as the tokenizer begins texts; once, where the text brings its own beginning."""
        begin = getattr(self.tokenizer, "bos_token", None)
        if begin and text.startswith(begin):
            return self.plain(text)
        return list(self.tokenizer(text)["input_ids"])

    def plain(self, text: str) -> list[int]:
        """Token ids of a text, nothing added."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def begins(self, ids: Sequence[int]) -> bool:
        """Whether token ids begin with the begin-of-text token."""
        begin = self.tokenizer.bos_token_id
        return begin is not None and list(ids[:1]) == [begin]

    def shorten(self, ids: list[int], room: int) -> list[int]:
        """The last `room` token ids; a begin-of-text token stays at the front."""
        kept = int(self.begins(ids) and room > 0)
        return ids[:kept] + ids[len(ids) - room + kept :]

    @property
    def eos(self) -> frozenset[int]:
        """Token ids that end a text."""
        ids = self.model.generation_config.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id if self.tokenizer is not None else None
        return frozenset(ids if isinstance(ids, list) else [] if ids is None else [ids])


def wrap(
    model: Any, tokenizer: Any = None, *, name: str = "local", sha256: str = "", base_sha256: str = ""
) -> Backbone:
    """Make a Backbone of a loaded transformers model.

    Raises:
        DlbenchError: the architecture is not supported.
    """
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise DlbenchError(unsupported(name, kind))
    model.eval().requires_grad_(False)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    return Backbone(name, model, tokenizer, FAMILIES[kind], dtype, sha256, base_sha256 or sha256)


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
    """Load an embedded backbone, a local folder or a hub model, with its tokenizer.

    Args:
        name: "nano", "nano-half", a folder, or a hub id such as "facebook/opt-125m" (with "@revision" if wanted).
        device: a torch device.
        dtype: a key of DTYPES; or INT8, which is a backbone of its own, derived from the same model in `plain_dtype`.
        attention: transformers' attention implementation; None takes the library's choice.
        device_map: how transformers spreads the layers ("auto" and its like, or a JSON file); None: all on `device`.
        trust_remote_code: whether code that comes with a model may run.

    Raises:
        DlbenchError: not found, unreadable or unsupported; the message says what to do.
    """
    folder = embedded_folder(name) if name in EMBEDDED else Path(name)
    source, _, revision = (str(folder), "", "") if folder.is_dir() else name.partition("@")
    if name in EMBEDDED and not folder.is_dir():
        raise DlbenchError(f"the weights of {name!r} are missing from this installation: {folder}; reinstall dlbench")
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, **({"revision": revision} if revision else {})}
    plain = plain_dtype(dtype, device)
    more = {} if device_map is None else {"device_map": _map(device_map)}
    if more and dtype == INT8:
        raise DlbenchError("int8 keeps all layers on one device: leave --device-map away, or take another dtype")
    try:
        with quiet():
            tokenizer, model = _read(name, source, options, dtype=DTYPES[plain], attn_implementation=attention, **more)
            if not more:
                model.to(device)
    except DlbenchError:
        raise
    except Exception as error:
        if ran_out(error):
            raise DlbenchError(f"model {name!r} in {plain} does not fit the memory of {device}") from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        hint = (
            "its files are damaged or incomplete: fetch or copy them again"
            if folder.is_dir()
            else f"give {', '.join(sorted(EMBEDDED))}, a folder, or a hub name (needs a network or a filled cache)"
        )
        raise DlbenchError(f"cannot load model {name!r}: {reason[:300]}; {hint}") from error
    digest = fingerprint(folder if folder.is_dir() else Path(_snapshot(source, revision)), code=trust_remote_code)
    base = digest
    if name in EMBEDDED and EMBEDDED[name] != name:
        base = fingerprint(embedded_folder(EMBEDDED[name]))
    elif (card := folder / "dlbench.json").is_file():
        base = str(json.loads(card.read_text()).get("base_sha256", digest))
    shown = folder.name if folder.is_dir() else name
    backbone = wrap(model, tokenizer, name=shown, sha256=digest, base_sha256=base)
    backbone.source = name
    backbone.spread = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.device.type != "meta"):
        raise DlbenchError(f"model {name!r} holds weights that are not finite: its files are damaged; fetch them again")
    if dtype == INT8:
        to_int8(backbone.layers)
        backbone.dtype = INT8
        backbone.sha256 = hashlib.sha256(f"{digest} {INT8}".encode()).hexdigest()
    return backbone


def _read(name: str, source: str, options: dict[str, Any], **more: Any) -> tuple[Any, Any]:
    """The tokenizer and the model, as transformers gives them."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    _only_trusted(name, source, options)
    kind = AutoConfig.from_pretrained(source, **options).model_type
    if kind not in FAMILIES:
        raise DlbenchError(unsupported(name, kind))
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
    return tokenizer, AutoModelForCausalLM.from_pretrained(source, **options, **more)


def _only_trusted(name: str, source: str, options: dict[str, Any]) -> None:
    """Refuse a model that brings code of its own, unless it is trusted; transformers would ask at the terminal.

    Raises:
        DlbenchError: it does, and is not.
    """
    from transformers import PretrainedConfig

    if options["trust_remote_code"]:
        return
    revision = {key: options[key] for key in options if key == "revision"}
    content, _ = PretrainedConfig.get_config_dict(source, **revision)
    if brought := (content.get("auto_map") or {}).values():
        raise DlbenchError(
            f"model {name!r} brings code of its own ({', '.join(map(str, brought))[:200]}): read it, and if you trust "
            "it, run with --trust-remote-code"
        )


def _map(given: str) -> Any:
    """What transformers takes as a device map.

    Raises:
        DlbenchError: the file cannot be read.
    """
    if not given.endswith(".json"):
        return given
    try:
        return json.loads(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DlbenchError(f"--device-map {given} cannot be read: {error}") from error


def plain_dtype(dtype: str, device: str) -> str:
    """The floating-point dtype that a model is loaded in: for INT8, float32 on a CPU and bfloat16 elsewhere."""
    if dtype != INT8:
        return dtype
    return "float32" if device == "cpu" else "bfloat16"


def fingerprint(folder: Path, *, code: bool = False) -> str:
    """sha256 over the weight, configuration and tokenizer files of a model folder, by name and content.

    Logs, curves and cards beside them do not change what a model writes, and do not count.

    Args:
        folder: the model's.
        code: whether Python files count too.
    """
    digest = hashlib.sha256()
    settings = re.compile(
        r"config\.json|generation_config\.json|tokenizer.*|.*vocab.*|merges\.txt|.*tokens.*\.json|chat_template.*|.*\.model"
    )
    suffixes = (".safetensors", ".bin", ".py") if code else (".safetensors", ".bin")
    for path in sorted(p for p in folder.iterdir() if p.suffix in suffixes or settings.fullmatch(p.name)):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _snapshot(source: str, revision: str) -> str:
    from huggingface_hub import snapshot_download

    return str(snapshot_download(source, revision=revision or None, local_files_only=True))
