"""Load a backbone, and know its family: where its layers, norm and projections are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlbench.data.thinking import Thinking
from dlbench.errors import DlbenchError
from dlbench.models.checkpoint.files import read_json
from dlbench.models.checkpoint.hashes import fingerprint, weights_sha256
from dlbench.models.checkpoint.reader import device_map_of, read
from dlbench.models.end_tokens import Ends, ends_of
from dlbench.models.families import FAMILIES, Family, resolve, unsupported
from dlbench.models.quantization import to_int8
from dlbench.system.paths import model_folder, record_name

EMBEDDED: dict[str, str] = {"nano": "nano", "nano-half": "nano"}
"""Backbones that ship with the package -> the base they are held against."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
INT8 = "int8"
"""Weight-only int8; see `dlbench.models.quantization`."""


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
    weights_sha256: str = ""
    """Of the weights as they were in memory once loaded, before any were quantised; empty where nobody asked."""
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
    def vocabulary(self) -> int:
        """Tokens that the model has an embedding for; a tokenizer may know more, or fewer."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def check_ids(self, ids: Sequence[int], what: str) -> None:
        """Refuse token ids that the model has no embedding for.

        Args:
            ids: token ids.
            what: they are of, for the message.

        Raises:
            DlbenchError: there is one.
        """
        if (most := max(ids, default=0)) < self.vocabulary:
            return
        named = getattr(self.tokenizer, "convert_ids_to_tokens", lambda id_: id_)
        raise DlbenchError(
            f"{what} needs token {named(most)!r}, number {most}, and the embedding of model {self.name!r} has "
            f"{self.vocabulary} rows: take the tokenizer that it was trained with, or a model with a row for the token"
        )

    @property
    def start(self) -> list[int]:
        """What stands before a text without a context: the begin-of-text token, or else that which ends a text.

        Raises:
            DlbenchError: the tokenizer has neither.
        """
        ids = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        if (found := next((id_ for id_ in ids if id_ is not None), None)) is None:
            raise DlbenchError(
                f"the tokenizer of model {self.name!r} has no token that begins or ends a text, and an answer without "
                "a context needs one before it: give it a bos_token"
            )
        return [found]

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
    def ends(self) -> Ends:
        """What ends a text."""
        return ends_of(self.model, self.tokenizer)

    @property
    def eos(self) -> frozenset[int]:
        """Token ids that end a text."""
        return self.ends.ids

    def text(self, tokens: Sequence[int], thinking: Thinking | None = None) -> str:
        """What tokens say: no special tokens, and nothing from an end token on, should it be spelled in letters.

        Args:
            tokens: that were written.
            thinking: where the model thinks, the marks of its thinking are part of the text.
        """
        if thinking is not None:
            return self.ends.cut(thinking.text(self.tokenizer, tokens))
        return self.ends.cut(str(self.tokenizer.decode(tokens, skip_special_tokens=True)))


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
    folder = embedded_folder(name) if name in EMBEDDED else model_folder(name)
    if name in EMBEDDED and not embedded_folder(name).is_dir():
        raise DlbenchError(f"the weights of {name!r} are missing from this installation: {folder}; reinstall dlbench")
    source, _, revision = name.partition("@") if folder is None else (str(folder), "", "")
    if device_map is not None and dtype == INT8:
        raise DlbenchError("int8 keeps all layers on one device: leave --device-map away, or take another dtype")
    tokenizer, model, files = read(
        name,
        source,
        revision,
        device=device,
        dtype=DTYPES[plain_dtype(dtype, device)],
        attention=attention,
        device_map=None if device_map is None else device_map_of(device_map),
        trust_remote_code=trust_remote_code,
    )
    digest = fingerprint(files, code=trust_remote_code)
    base = digest
    if EMBEDDED.get(name, name) != name:
        base = fingerprint(embedded_folder(EMBEDDED[name]))
    elif folder is not None:
        base = _base(folder, digest)
    backbone = wrap(model, tokenizer, name=record_name(folder or name), sha256=digest, base_sha256=base)
    backbone.source = name
    backbone.weights_sha256 = weights_sha256(model, digest)
    backbone.spread = len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1
    if dtype == INT8:
        to_int8(backbone.layers)
        backbone.dtype = INT8
        backbone.sha256 = hashlib.sha256(f"{digest} {INT8}".encode()).hexdigest()
    return backbone


def _base(folder: Path, digest: str) -> str:
    """The hash of the model that a trained one stems from, by its card; its own where it has none.

    Raises:
        DlbenchError: the card is damaged.
    """
    base = read_json(folder / "dlbench.json", {}).get("base_sha256", digest)
    if not re.fullmatch(r"[0-9a-f]{64}", str(base)):
        raise DlbenchError(f"{folder / 'dlbench.json'} is damaged: its base_sha256 is no sha256; fetch it again")
    return str(base)


def plain_dtype(dtype: str, device: str) -> str:
    """The floating-point dtype that a model is loaded in: for INT8, float32 on a CPU and bfloat16 elsewhere."""
    if dtype != INT8:
        return dtype
    return "float32" if device == "cpu" else "bfloat16"
