"""PEFT adapters: a folder with `adapter_config.json` and a few weights, merged into its base model when it is loaded.

The merged model is a model like any other: its layers have their usual classes, and cost what they usually cost.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.models.checkpoint.files import ADAPTERS, FileError, read_json, weight_files, whole
from dlbench.models.checkpoint.hashes import fingerprint
from dlbench.models.checkpoint.load_errors import MORE_THAN_TENSORS, cannot, text_of
from dlbench.models.checkpoint.source import ModelSource
from dlbench.system.paths import brief, model_path

_PLACES = ("base_model_name_or_path", "revision")
"""Settings of an adapter that say where its base is, and differ between machines."""


@dataclass(frozen=True)
class Adapter:
    """An adapter, found in the files of a model that was asked for."""

    name: str
    """The model, as the user gave it."""
    folder: Path
    config: Mapping[str, Any]

    @property
    def base(self) -> str:
        """The model that it belongs to, as `dlbench.models.loading.load` takes it.

        Raises:
            DlbenchError: the adapter does not say which, or it is a folder that is not there.
        """
        given = self.config.get(_PLACES[0])
        if not (isinstance(given, str) and given):
            raise DlbenchError(
                f"{self.folder / ADAPTERS[0]} does not name the adapter's base: put it there as {_PLACES[0]}"
            )
        beside = self.folder / given
        if not Path(given).is_absolute() and beside.exists():
            return str(beside)
        is_path = Path(given).is_absolute() or given.startswith((".", "~")) or given.count("/") > 1
        if is_path and model_path(given) is None:
            raise self.without_base("which is not there")
        revision = self.config.get(_PLACES[1])
        return f"{given}@{revision}" if revision and model_path(given) is None else given

    def without_base(self, reason: str) -> DlbenchError:
        """The error for a base that cannot be found: it names the adapter, and the file that says where its base is.

        Args:
            reason: what is wrong with the base.
        """
        base = brief(str(self.config[_PLACES[0]]))
        return DlbenchError(
            f"model {brief(self.name)!r} is an adapter of {base}, {reason}: put the base's place "
            f"into {self.folder / ADAPTERS[0]} as {_PLACES[0]}"
        )

    @property
    def kind(self) -> str:
        """How it adapts, such as "LORA"."""
        return str(self.config.get("peft_type", "PEFT"))

    def sha256(self, base: str) -> str:
        """Hash of the merged model: of the base's hash, the adapter's weights and its settings.

        Args:
            base: hash of the base's files.
        """
        settings = {key: value for key, value in self.config.items() if key not in _PLACES}
        content = f"{base} {fingerprint(self.folder)} {json.dumps(settings, sort_keys=True)}"
        return hashlib.sha256(content.encode()).hexdigest()

    def has_tokenizer(self) -> bool:
        """Whether a tokenizer lies beside it, with tokens that it may have added."""
        return any((self.folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))


def adapter_of(source: ModelSource) -> Adapter | None:
    """The adapter that a source holds in place of a model; None where it holds none.

    Raises:
        DlbenchError: it lies beside a model's weights, or lacks its settings or weights.
    """
    if source.gguf is not None:
        return None
    name, folder = source.name, Path(source.location)
    files = [folder / file for file in ADAPTERS if (folder / file).is_file()] or _on_hub(source)
    if not files:
        return None
    try:
        if folder.is_dir() and weight_files(folder):
            raise DlbenchError(
                f"model {name!r} holds a PEFT adapter beside its weights ({files[0].name}): merge it into them, or, "
                "where that is done, move its files elsewhere"
            )
        if files[0].name != ADAPTERS[0]:
            raise FileError(f"{files[0]} is an adapter's, and its {ADAPTERS[0]} is not there: copy it too")
        config = read_json(files[0])
        if not (weights := [files[0].parent / file for file in ADAPTERS[1:] if (files[0].parent / file).is_file()]):
            raise FileError(f"{files[0].parent} holds no weights of the adapter ({' or '.join(ADAPTERS[1:])})")
        whole(weights[0])
    except FileError as error:
        raise DlbenchError(cannot(name, str(error))) from error
    return Adapter(name, files[0].parent, config)


def _on_hub(source: ModelSource) -> list[Path]:
    """The configuration file of an adapter on the hub, or in its cache; empty where there is none."""
    if Path(source.location).is_dir():
        return []
    from huggingface_hub import file_exists, snapshot_download, try_to_load_from_cache

    file, revision = ADAPTERS[0], source.revision or None
    try:
        cached = try_to_load_from_cache(source.location, file, revision=revision)
        # None: the cache does not know; `file_exists` fails at once where the hub cannot be reached
        if cached is None and file_exists(source.location, file, revision=revision):
            cached = str(Path(snapshot_download(source.location, revision=revision)) / file)
    except Exception:  # reading the model will tell what is wrong with the name or the hub
        return []
    return [Path(cached)] if isinstance(cached, str) else []


def merge(model: Any, adapter: Adapter, device: str, *, trust_remote_code: bool = False) -> Any:
    """Merge an adapter into its loaded base model, and return the model.

    Args:
        model: the base, changed in place.
        adapter: what to merge.
        device: where the base's weights are.
        trust_remote_code: whether pickled code in the adapter's weights may run.

    Raises:
        DlbenchError: peft is not installed, the adapter does not fit the base, or is of a kind that cannot be merged.
    """
    try:
        import peft  # noqa: F401
    except ModuleNotFoundError as error:
        message = f"model {adapter.name!r} is a PEFT adapter, which needs the package peft: pip install 'dlbench[peft]'"
        raise DlbenchError(message) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft and transformers are released apart
            with _pickles(trust_remote_code):
                return _merged(model, adapter, device)
    except DlbenchError:
        raise
    except pickle.UnpicklingError as error:
        raise DlbenchError(cannot(adapter.name, f"{ADAPTERS[2]} {MORE_THAN_TENSORS}")) from error
    except Exception as error:  # peft and torch raise many types
        raise DlbenchError(
            f"model {adapter.name!r} is an adapter that cannot be merged into {brief(adapter.base)}: {text_of(error)}"
        ) from error


@contextmanager
def _pickles(trusted: bool) -> Iterator[None]:
    """Let pickled code in an adapter's weights run; peft has no argument for it."""
    from peft.utils import save_and_load

    reader = save_and_load.torch_load
    if trusted:
        save_and_load.torch_load = partial(reader, weights_only=False)
    try:
        yield
    finally:
        save_and_load.torch_load = reader


def _merged(model: Any, adapter: Adapter, device: str) -> Any:
    from peft import PeftConfig, PeftModel, load_peft_weights

    config: Any = PeftConfig.from_pretrained(str(adapter.folder))
    if config.is_prompt_learning:
        raise DlbenchError(f"model {adapter.name!r} is an adapter of kind {adapter.kind}, which has nothing to merge")
    config.inference_mode = True
    _resize(model, adapter, load_peft_weights(str(adapter.folder), device="cpu"))
    adapted: Any = PeftModel(model, config)
    report = adapted.load_adapter(str(adapter.folder), "default", is_trainable=False, torch_device=device)
    lost = [key for key in report.missing_keys if ".default" in key or "modules_to_save" in key]
    if lost or report.unexpected_keys:
        some = ", ".join([*lost, *report.unexpected_keys][:3])
        raise DlbenchError(
            f"model {adapter.name!r} is an adapter that does not fit its base {brief(adapter.base)}: {len(lost)} "
            f"weights are missing and {len(report.unexpected_keys)} have no place ({some})"
        )
    return adapted.merge_and_unload()


def _resize(model: Any, adapter: Adapter, weights: Mapping[str, Any]) -> None:
    """Give the base as many token embeddings as the adapter brings, whose tokenizer may have tokens of its own.

    Args:
        model: the base, changed in place.
        adapter: what is to be merged.
        weights: the adapter's, by their names in its file.

    Raises:
        DlbenchError: the adapter has rows of the embedding for new tokens, and none of the head.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    paths = {id(module): path for path, module in model.named_modules()}
    brought, of_head = (
        next((weight for name, weight in weights.items() if name.endswith(f".{paths[id(module)]}.weight")), None)
        for module in (embedding, head)
    )
    if brought is None or len(brought) == len(embedding.weight):
        return
    if head.weight is not embedding.weight and of_head is None:
        raise DlbenchError(
            f"model {adapter.name!r} is an adapter with {len(brought)} token embeddings for the "
            f"{len(embedding.weight)} of its base, and without the rows of the head for new tokens: save it with "
            "save_embedding_layers=True"
        )
    model.resize_token_embeddings(len(brought), mean_resizing=False)
