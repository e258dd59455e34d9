"""Why a model could not be loaded and what to do, derived from the error and from the model's files."""

from __future__ import annotations

import importlib.util
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from dlbench.errors import OF_THE_SYSTEM, DlbenchError
from dlbench.models.checkpoint.files import FileError, read_json, weight_files, whole
from dlbench.models.families import FAMILIES, unsupported
from dlbench.system.paths import brief

Stage = Literal["configuration", "tokenizer", "weights"]
"""The part that was being read."""
_UNREACHABLE = (
    *("OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectionError", "ProxyError", "SSLError"),
    *("ConnectError", "ReadError", "ConnectTimeout", "ReadTimeout", "PoolTimeout", "RemoteProtocolError"),
)
"""Exceptions of the hub's library and of the HTTP libraries below it, which have no common class."""
_GIVE = "give nano, nano-half, smollm2, a folder, a GGUF file, or a hub name"
NO_TOKENIZER = (
    "it has no vocabulary of a tokenizer (tokenizer.json, tokenizer.model, or vocab.json with merges.txt): copy the "
    "tokenizer's files from the model that it was made from"
)
MORE_THAN_TENSORS = (
    "holds more than tensors, and pickled code may do anything: save it as safetensors, or, if you trust it, run with "
    "--trust-remote-code"
)
_SENTENCEPIECE = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
_TIKTOKEN = {"tiktoken": "tiktoken", "blobfile": "blobfile"}
_VOCABULARIES = ("tokenizer.json", "*.model", "vocab.json", "vocab.txt", "tekken.json", "*.tiktoken")


def explain(name: str, error: Exception, stage: Stage, folder: Path | None) -> DlbenchError:
    """Make a one-line error with the cause.

    Args:
        name: the model, as the user gave it.
        error: the exception.
        stage: the part that was being read.
        folder: folder of the files, or the GGUF file; None where nothing was downloaded.
    """
    try:
        reason = _of_error(error) or (None if folder is None else _of_files(name, error, stage, folder))
    except FileError as damage:
        reason = str(damage)
    if reason is None:
        what = {"configuration": "config.json", "tokenizer": "its tokenizer", "weights": "its weights"}[stage]
        reason = f"{what} cannot be read: {text_of(error)}"
    return DlbenchError(reason if reason.startswith("model ") else cannot(name, reason))


def cannot(name: str, reason: str) -> str:
    """Begin a message about a model that cannot be loaded."""
    return f"cannot load model {brief(name)!r}: {reason}"


def text_of(error: BaseException) -> str:
    """The message of an error, on one line."""
    text = " ".join("".join(c if c.isprintable() else " " for c in str(error)).split())
    plain = type(error) in (OSError, ValueError, RuntimeError)
    return brief(text if text and plain else ": ".join(filter(None, (type(error).__name__, text))), 300)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# ---- causes known from the error alone


def _of_error(error: Exception) -> str | None:
    names = {type(one).__name__ for one in _chain(error)}
    if "GatedRepoError" in names:
        return "it is gated: ask for access on its page, then log in by `hf auth login`"
    if "RevisionNotFoundError" in names:
        return "it has no such revision: give ORG/NAME, or ORG/NAME@REVISION with a branch, tag or commit"
    if "RepositoryNotFoundError" in names:
        return f"the hub has no model of that name (or hides it: log in by `hf auth login`); {_GIVE}"
    if "HFValidationError" in names:
        return f"that is no folder, and no name that a hub can have; {_GIVE}"
    if names.intersection(_UNREACHABLE):
        return f"it is not on this machine, and the hub {_silence()}: it needs a network or a filled cache; {_GIVE}"
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in OF_THE_SYSTEM:
            return f"{brief(str(one.filename)) if one.filename else 'a file'}: {one.strerror}"
    if "trust_remote_code" in str(error):
        return "it brings code of its own: read it, and if you trust it, run with --trust-remote-code"
    return None


def _silence() -> str:
    from huggingface_hub import constants

    return "is not asked (offline)" if constants.HF_HUB_OFFLINE else "cannot be reached"


# ---- causes found in the files


def _of_files(name: str, error: Exception, stage: Stage, folder: Path) -> str | None:
    """Describe what is wrong with the files of a model; None where nothing is found.

    Raises:
        FileError: one of them cannot be read.
    """
    if folder.is_file():
        return _of_gguf(error, stage)
    if not (folder / "config.json").is_file():
        return _no_config(folder)
    whole(folder / "config.json")
    config = read_json(folder / "config.json")
    if stage == "tokenizer":
        return _of_tokenizer(folder)
    if stage == "weights":
        return _of_weights(error, folder, config)
    if not isinstance(kind := config.get("model_type"), str):
        return "config.json does not say of which model_type it is: take the one that transformers saved"
    from transformers import CONFIG_MAPPING

    known = kind in FAMILIES or kind in CONFIG_MAPPING
    return None if known else unsupported(name, kind, "transformers does not know this type")


def _of_gguf(error: Exception, stage: Stage) -> str:
    """Describe why transformers cannot read a GGUF file that is whole."""
    if named := re.search(
        r"architecture '?([\w.-]+)'? is not supported|Unknown gguf model_type: ([\w.-]+)", str(error)
    ):
        return f"it is a GGUF file of the architecture {named[1] or named[2]!r}, which transformers cannot read"
    what = {"configuration": "the configuration", "tokenizer": "the tokenizer", "weights": "the weights"}[stage]
    return f"transformers cannot read {what} in its GGUF file: {text_of(error)}"


def _no_config(folder: Path) -> str:
    inner = next(
        (p.parent for p in sorted([*folder.glob("*/config.json"), *folder.glob("snapshots/*/config.json")])), None
    )
    advice = (
        f"; {inner} has one: give that folder" if inner else ", so it is no folder that transformers saved a model in"
    )
    return f"it has no config.json{advice}"


def _of_tokenizer(folder: Path) -> str | None:
    files = [path for pattern in _VOCABULARIES for path in sorted(folder.glob(pattern))]
    for path in (folder / "tokenizer_config.json", *files):
        if path.is_file():
            whole(path)
            if path.suffix == ".json":
                read_json(path)
    if not files:
        return NO_TOKENIZER
    names = {path.name for path in files}
    if names == {"vocab.json"} and not (folder / "merges.txt").is_file():
        return "its tokenizer lacks merges.txt, which belongs to vocab.json"
    if "tokenizer.json" not in names and (model := next((p for p in files if p.suffix == ".model"), None)):
        ranks = re.match(rb"[A-Za-z0-9+/=]+ \d+\n", model.read_bytes()[:4096])
        kind, packages = ("tiktoken", _TIKTOKEN) if ranks else ("SentencePiece", _SENTENCEPIECE)
        if lacking := [p for p, module in packages.items() if not _installed(module)]:
            return (
                f"{model.name} is a {kind} file, and {' and '.join(lacking)} {'are' if len(lacking) > 1 else 'is'} not "
                f"installed: pip install {' '.join(lacking)}, or copy the model's tokenizer.json into the folder"
            )
    return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def _of_weights(error: Exception, folder: Path, config: Mapping[str, Any]) -> str | None:
    files = weight_files(folder)
    if not files:
        others = [
            p.name for suffix in ("safetensors", "bin", "gguf", "pth", "pt") for p in sorted(folder.glob(f"*.{suffix}"))
        ]
        beside = f"; {', '.join(others[:3])} is not what transformers looks for" if others else ""
        return f"it has no weights (model.safetensors, pytorch_model.bin, or an index of several files){beside}"
    if absent := [path.name for path in files if not path.is_file()]:
        return f"{len(absent)} of its {len(files)} files of weights are not there: {', '.join(absent[:3])}"
    for path in files:
        whole(path)
        if isinstance(error, pickle.UnpicklingError) and "Weights only load failed" in str(error):
            return f"{path.name} {MORE_THAN_TENSORS}"
    if how := config.get("quantization_config"):
        by = how.get("quant_method", "an unknown method") if isinstance(how, dict) else how
        return f"it is quantised by {by}, which cannot be used here: {text_of(error)}"
    return _of_config(config, folder)


def _of_config(config: Mapping[str, Any], folder: Path) -> str | None:
    """Describe why no model can be built from a configuration; None where one can."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if config.get("auto_map"):
        return None
    pad, rows = config.get("pad_token_id"), config.get("vocab_size")
    if isinstance(pad, int) and isinstance(rows, int) and pad >= rows:
        return f"config.json has a pad_token_id of {pad}, and a vocab_size of {rows}: correct the one that is wrong"
    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))  # type: ignore[no-untyped-call]
    except Exception as error:
        return f"transformers cannot build what config.json describes: {text_of(error)}"
    return None
