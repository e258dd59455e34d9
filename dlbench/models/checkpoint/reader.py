"""Read a model and its tokenizer with transformers; a model that is not complete is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dlbench.errors import DlbenchError
from dlbench.models.checkpoint.buffers import fill
from dlbench.models.checkpoint.files import ADAPTERS, FileError, contradiction, read_json, weight_files
from dlbench.models.checkpoint.load_errors import NO_TOKENIZER, Stage, cannot, explain
from dlbench.models.checkpoint.loading_report import judge
from dlbench.models.families import FAMILIES, Family, unsupported
from dlbench.models.recognition import Unrecognised, expected
from dlbench.system.device_memory import ran_out
from dlbench.system.paths import brief
from dlbench.terminal.quiet import quiet_torchao


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from."""

    name: str
    """For messages: the name that was given."""
    location: str
    """A folder, or a hub id."""
    revision: str = ""
    """Revision of the hub id; empty for its default."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""

    @property
    def at(self) -> dict[str, str]:
        """Arguments of transformers' readers that select the revision."""
        return {"revision": self.revision} if self.revision else {}

    def folder(self) -> Path | None:
        """The folder of the model's files; None where the hub's cache has none of them."""
        if Path(self.location).is_dir():
            return Path(self.location)
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.location, revision=self.revision or None, local_files_only=True))
        except Exception:  # the hub's library raises many types
            return None


@dataclass(frozen=True)
class Placement:
    """How weights are loaded."""

    device: str
    dtype: torch.dtype
    attention: str | None = None
    """transformers' attention implementation; None takes the library's default."""
    device_map: Any = None
    """How transformers spreads the layers over devices; None: all on `device`."""

    @property
    def too_large(self) -> str:
        """For messages: the weights do not fit."""
        return f"{str(self.dtype).removeprefix('torch.')} does not fit the memory of {self.device}"


def read(source: ModelSource, placement: Placement) -> tuple[Any, Any, Path]:
    """Read a tokenizer, a model, and the folder that holds their files.

    Raises:
        DlbenchError: the model cannot be read completely; the message says why, and what to do.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    stage = partial(_explained, source, placement)
    with stage("configuration"):
        family = _family(source)
    with stage("tokenizer"):
        tokenizer = _tokenizer(source)
    with stage("weights"):
        model = _model(source, placement, family)
        folder = source.folder()
        assert folder is not None
        _check(source.name, tokenizer, model, folder)
    return tokenizer, model, folder


def _family(source: ModelSource) -> Family:
    """The family of the model, by its configuration; of a type without a row, where its layers are.

    Raises:
        DlbenchError: it is an adapter, brings code that may not run, or is of an unsupported type.
    """
    from transformers import AutoConfig

    _no_adapter(source)
    if not source.trust_remote_code:
        _no_code(source)
    config = AutoConfig.from_pretrained(source.location, **source.at, trust_remote_code=source.trust_remote_code)
    kind = config.model_type
    try:
        return FAMILIES[kind] if kind in FAMILIES else expected(config, trust_remote_code=source.trust_remote_code)
    except Unrecognised as reason:
        raise DlbenchError(unsupported(source.name, kind, str(reason))) from reason


def _tokenizer(source: ModelSource) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        source.location, padding_side="left", **source.at, trust_remote_code=source.trust_remote_code
    )
    tokenizer("a b")  # with files missing, some classes fail only here
    return tokenizer


def _model(source: ModelSource, placement: Placement, family: Family) -> Any:
    """The model with its weights, all of them from its files.

    Raises:
        DlbenchError: weights are missing, superfluous or of another shape.
    """
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source.location,
        **source.at,
        trust_remote_code=source.trust_remote_code,
        dtype=placement.dtype,
        attn_implementation=placement.attention,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # the report then names them; otherwise the error does not
        **({} if placement.device_map is None else {"device_map": placement.device_map}),
    )
    model, report = loaded
    judge(source.name, model, family.layers, report)
    fill(model)
    if placement.device_map is None:
        model.to(placement.device)
    return model


@contextmanager
def _explained(source: ModelSource, placement: Placement, stage: Stage) -> Iterator[None]:
    """Turn any error while reading into one line for people."""
    try:
        with quiet_torchao():
            yield
    except FileError as error:
        raise DlbenchError(cannot(source.name, str(error))) from error
    except DlbenchError:
        raise
    except Exception as error:
        if ran_out(error):
            raise DlbenchError(f"model {source.name!r} in {placement.too_large}") from error
        raise explain(source.name, error, stage, source.folder()) from error


def _no_adapter(source: ModelSource) -> None:
    """Reject an adapter, alone or beside weights.

    With PEFT installed, transformers applies the adapter and reports on its loading only; without PEFT it ignores it.

    Raises:
        DlbenchError: there is one.
    """
    name, folder = source.name, Path(source.location)
    files = [folder / file for file in ADAPTERS if (folder / file).is_file()] or _hub_adapter(source)
    if not files:
        return
    base = read_json(files[0]).get("base_model_name_or_path") if files[0].name == ADAPTERS[0] else None
    adapter = f"a PEFT adapter of {brief(str(base))}" if base else "a PEFT adapter"
    if folder.is_dir() and weight_files(folder):
        raise DlbenchError(
            f"model {name!r} holds {adapter} beside its weights ({files[0].name}): merge it into them, or, where that "
            "is done, move its files elsewhere"
        )
    raise DlbenchError(
        f"model {name!r} is {adapter}: merge it into that model first (merge_and_unload, then save_pretrained), and "
        "give the result"
    )


def _hub_adapter(source: ModelSource) -> list[Path]:
    """The configuration file of an adapter on the hub, or in its cache; empty where there is none."""
    if Path(source.location).is_dir():
        return []
    from huggingface_hub import file_exists, hf_hub_download, try_to_load_from_cache

    file, revision = ADAPTERS[0], source.revision or None
    try:
        cached = try_to_load_from_cache(source.location, file, revision=revision)
        # None: the cache does not know; `file_exists` fails at once where the hub cannot be reached
        if cached is None and file_exists(source.location, file, revision=revision):
            cached = hf_hub_download(source.location, file, revision=revision)
    except Exception:  # reading the model will tell what is wrong with the name or the hub
        return []
    return [Path(cached)] if isinstance(cached, str) else []


def _no_code(source: ModelSource) -> None:
    """Reject a model that brings code of its own; transformers would ask at the terminal.

    Raises:
        DlbenchError: it does.
    """
    from transformers import PretrainedConfig

    content, _ = PretrainedConfig.get_config_dict(source.location, **source.at)
    if brought := (content.get("auto_map") or {}).values():
        raise DlbenchError(
            f"model {source.name!r} brings code of its own ({', '.join(map(str, brought))[:200]}): read it, and if you "
            "trust it, run with --trust-remote-code"
        )


def _check(name: str, tokenizer: Any, model: Any, folder: Path) -> None:
    """Check for faults that transformers reads without complaint.

    Raises:
        DlbenchError: the tokenizer has no vocabulary, generation_config.json is damaged, the copy of a file broke off,
            or weights are not finite.
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
    """Read a device map: a name that transformers knows, or a JSON file.

    Raises:
        DlbenchError: the file cannot be read.
    """
    if not given.endswith(".json"):
        return given
    try:
        return json.loads(Path(given).expanduser().read_text(encoding="utf-8"))
    except (OSError, RuntimeError, ValueError) as error:
        raise DlbenchError(f"--device-map {given} cannot be read: {error}") from error
