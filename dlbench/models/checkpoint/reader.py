"""Read a model and its tokenizer through transformers, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dlbench.errors import DlbenchError
from dlbench.models.checkpoint.buffers import fill
from dlbench.models.checkpoint.files import ADAPTERS, FileError, contradiction, read_json, weight_files
from dlbench.models.checkpoint.load_errors import NO_TOKENIZER, Stage, cannot, explain
from dlbench.models.checkpoint.loading_report import judge
from dlbench.models.families import FAMILIES, unsupported
from dlbench.system.device_memory import ran_out
from dlbench.system.paths import brief
from dlbench.terminal.quiet import quiet_torchao


def read(
    name: str,
    source: str,
    revision: str,
    *,
    device: str,
    dtype: torch.dtype,
    attention: str | None,
    device_map: Any,
    trust_remote_code: bool,
) -> tuple[Any, Any, Path]:
    """A tokenizer, a model, and the folder that holds their files.

    Args:
        name: the model's, for messages.
        source: a folder, or a hub name.
        revision: of the hub name; empty for its main one.
        device: where the weights go.
        dtype: that they are cast to.
        attention: transformers' attention implementation; None takes the library's choice.
        device_map: how transformers spreads the layers instead; None: all on `device`.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        DlbenchError: the model cannot be read whole; the message says why, and what to do.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = {"revision": revision} if revision else {}
    options = {**where, "trust_remote_code": trust_remote_code}
    memory = f"{str(dtype).removeprefix('torch.')} does not fit the memory of {device}"
    told = partial(_told, name, source, revision, memory)
    with told("configuration"):
        _no_adapter(name, source, where)
        if not trust_remote_code:
            _no_code(name, source, where)
        kind = AutoConfig.from_pretrained(source, **options).model_type
        if kind not in FAMILIES:
            raise DlbenchError(unsupported(name, kind))
    with told("tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
        tokenizer("a b")  # some classes refuse here what the files lack
    with told("weights"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            **options,
            dtype=dtype,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, by name; else it is an error without names
            **({} if device_map is None else {"device_map": device_map}),
        )
        model, report = loaded
        judge(name, model, FAMILIES[kind].layers, report)
        fill(model)
        if device_map is None:
            model.to(device)
        folder = _folder(source, revision)
        assert folder is not None
        _check(name, tokenizer, model, folder)
    return tokenizer, model, folder


@contextmanager
def _told(name: str, source: str, revision: str, memory: str, stage: Stage) -> Iterator[None]:
    """Make one line of whatever goes wrong while something is read."""
    try:
        with quiet_torchao():
            yield
    except FileError as error:
        raise DlbenchError(cannot(name, str(error))) from error
    except DlbenchError:
        raise
    except Exception as error:
        if ran_out(error):
            raise DlbenchError(f"model {name!r} in {memory}") from error
        raise explain(name, error, stage, _folder(source, revision)) from error


def _folder(source: str, revision: str) -> Path | None:
    """Where a model's files are; None where the hub's cache has none of them."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, revision=revision or None, local_files_only=True))
    except Exception:  # the hub's library has many reasons
        return None


def _no_adapter(name: str, source: str, where: dict[str, str]) -> None:
    """Refuse an adapter, alone or beside weights.

    transformers applies it where PEFT is installed, reports on its loading only, and passes over it where PEFT is not.

    Raises:
        DlbenchError: there is one.
    """
    folder = Path(source)
    found = [folder / file for file in ADAPTERS if (folder / file).is_file()] or _hub_adapter(source, where)
    if not found:
        return
    base = read_json(found[0]).get("base_model_name_or_path") if found[0].name == ADAPTERS[0] else None
    adapter = f"a PEFT adapter of {brief(str(base))}" if base else "a PEFT adapter"
    if folder.is_dir() and weight_files(folder):
        raise DlbenchError(
            f"model {name!r} holds {adapter} beside its weights ({found[0].name}): merge it into them, or, where that "
            "is done, move its files elsewhere"
        )
    raise DlbenchError(
        f"model {name!r} is {adapter}: merge it into that model first (merge_and_unload, then save_pretrained), and "
        "give the result"
    )


def _hub_adapter(source: str, where: dict[str, str]) -> list[Path]:
    """The configuration of the adapter that a hub, or its cache, has under a name."""
    if Path(source).is_dir():
        return []
    from huggingface_hub import file_exists, hf_hub_download, try_to_load_from_cache

    file, revision = ADAPTERS[0], where.get("revision")
    try:
        cached = try_to_load_from_cache(source, file, revision=revision)
        # None where nothing is known; asking whether there is one gives up at once where the hub cannot be reached
        if cached is None and file_exists(source, file, revision=revision):
            cached = hf_hub_download(source, file, revision=revision)
    except Exception:  # what is wrong with the name or the hub shows when the model is asked for
        return []
    return [Path(cached)] if isinstance(cached, str) else []


def _no_code(name: str, source: str, where: dict[str, str]) -> None:
    """Refuse a model that brings code of its own; transformers would ask at the terminal.

    Raises:
        DlbenchError: it does.
    """
    from transformers import PretrainedConfig

    content, _ = PretrainedConfig.get_config_dict(source, **where)
    if brought := (content.get("auto_map") or {}).values():
        raise DlbenchError(
            f"model {name!r} brings code of its own ({', '.join(map(str, brought))[:200]}): read it, and if you trust "
            "it, run with --trust-remote-code"
        )


def _check(name: str, tokenizer: Any, model: Any, folder: Path) -> None:
    """Refuse what transformers reads without a word, though it is not what it should be.

    Raises:
        DlbenchError: the tokenizer knows no words, generation_config.json is damaged, weights are zero because a copy
            broke off, or are not finite.
    """
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise DlbenchError(cannot(name, NO_TOKENIZER))
    read_json(folder / "generation_config.json", {})
    floats = [] if hasattr(model.config, "quantization_config") else [n for n, p in model.named_parameters()]
    if fault := contradiction(weight_files(folder), floats):
        raise DlbenchError(cannot(name, f"{fault}; fetch or copy it again"))
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters() if p.device.type != "meta"):
        raise DlbenchError(_not_finite(name, model.dtype))


def _not_finite(name: str, dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        return f"model {name!r} holds weights that are not finite in float16: take --dtype bfloat16 or float32"
    return f"model {name!r} holds weights that are not finite: its files are damaged; fetch them again"


def device_map_of(given: str) -> Any:
    """What transformers takes as a device map.

    Raises:
        DlbenchError: the file cannot be read.
    """
    if not given.endswith(".json"):
        return given
    try:
        return json.loads(Path(given).expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError) as error:
        raise DlbenchError(f"--device-map {given} cannot be read: {error}") from error
