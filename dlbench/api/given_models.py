"""Models as a Python user gives them: by name, or loaded."""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone, wrap
from dlbench.models.catalog import check_model, resolve_device
from dlbench.models.loading import load, settled_dtype
from dlbench.system.paths import record_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    GivenModel: TypeAlias = str | Path | PreTrainedModel
    Tokenizer: TypeAlias = PreTrainedTokenizerBase


@contextlib.contextmanager
def stored(models: Sequence[GivenModel], tokenizer: Tokenizer | None) -> Iterator[tuple[str, ...]]:
    """The models by name; a loaded one is the folder that it is written to, which is removed in the end.

    So every process of a run can load it, and the user's own is not touched.

    Args:
        models: names, folders, or loaded models.
        tokenizer: of the loaded models.

    Raises:
        DlbenchError: a loaded model comes without its tokenizer, or cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="dlbench-model-") as scratch:
        yield tuple(
            str(model) if isinstance(model, str | Path) else _write(model, tokenizer, Path(scratch, str(number)))
            for number, model in enumerate(models)
        )


def name_of(model: PreTrainedModel) -> str:
    """The name of a loaded model in records: the last part of what it was loaded from, else its kind."""
    given = str(model.config.name_or_path).rstrip("/").rsplit("/", 1)[-1]
    return record_name(given or str(model.config.model_type))


def _required(tokenizer: Tokenizer | None, model: PreTrainedModel) -> Tokenizer:
    """The tokenizer of a loaded model.

    Raises:
        DlbenchError: there is none.
    """
    if tokenizer is None:
        raise DlbenchError(f"model {name_of(model)!r} is loaded: give its tokenizer too (tokenizer=…)")
    return tokenizer


def _write(model: PreTrainedModel, tokenizer: Tokenizer | None, scratch: Path) -> str:
    """Write a loaded model and its tokenizer into a folder of its name, and return that."""
    tokenizer = _required(tokenizer, model)
    folder = scratch / name_of(model)
    config = copy.deepcopy(vars(model.config))
    try:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
        text = " ".join(str(error).split())
        raise DlbenchError(f"model {name_of(model)!r} cannot be written for the run: {text}") from error
    finally:
        vars(model.config).clear()
        vars(model.config).update(config)  # to write it has noted its class and dtype there
    return str(folder)


@contextlib.contextmanager
def loaded(model: GivenModel, tokenizer: Tokenizer | None, device: str, dtype: str | None) -> Iterator[Backbone]:
    """A model ready to decode; a loaded one is used in place, and is afterwards as it was.

    Args:
        model: a name, a folder, or a loaded model.
        tokenizer: of a loaded model.
        device: for a model that is given by name.
        dtype: likewise; None for the default of runs.

    Raises:
        DlbenchError: the model cannot be loaded or is not supported, or its tokenizer is missing.
    """
    if isinstance(model, str | Path):
        check_model(str(model))
        place = resolve_device(device)
        yield load(str(model), device=place, dtype=settled_dtype(dtype, str(model), place))
        return
    tokenizer = _required(tokenizer, model)
    training = {module: module.training for module in model.modules()}
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        yield wrap(model, tokenizer, name=name_of(model))
    finally:
        for module, was in training.items():
            module.training = was
        for parameter, was in trainable.items():
            parameter.requires_grad_(was)
