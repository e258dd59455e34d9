"""Read a model and its tokenizer with transformers; a model that is not complete is an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dlbench.errors import DlbenchError
from dlbench.models.checkpoint.buffers import fill
from dlbench.models.checkpoint.files import FileError, contradiction, first_dtype, read_json, weight_files
from dlbench.models.checkpoint.gguf_file import check_claimed, dequantising, parsed_once, plain, read_facts
from dlbench.models.checkpoint.hashes import plain_tensors
from dlbench.models.checkpoint.load_errors import NO_TOKENIZER, Stage, cannot, explain
from dlbench.models.checkpoint.loading_report import judge
from dlbench.models.checkpoint.quantised import check_linear, described, settings_of
from dlbench.models.checkpoint.source import Loaded, ModelSource, Placement
from dlbench.models.families import FAMILIES, Family, unsupported
from dlbench.models.recognition import Unrecognised, expected
from dlbench.system.device_memory import ran_out
from dlbench.terminal.quiet import quiet_torchao

_MOST = {
    "num_hidden_layers": 10_000,
    "hidden_size": 1 << 20,
    "intermediate_size": 1 << 24,
    "num_attention_heads": 1 << 16,
    "num_key_value_heads": 1 << 16,
    "head_dim": 1 << 16,
    "vocab_size": 1 << 25,
}
"""Sizes in a configuration, each with a number that no model reaches."""


def read(source: ModelSource, placement: Placement) -> Loaded:
    """Read a tokenizer, a model, and facts about its files.

    Raises:
        DlbenchError: the model cannot be read completely; the message says why, and what to do.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with source.alone() as only, nullcontext() if source.gguf is None else parsed_once():
        with _explained(source, placement, "configuration"):
            facts = None if source.gguf is None else read_facts(source.gguf)
            family, config = _family(only)
            stored = _stored(config, source) if facts is None else facts.dtype
            placement = placement.settled(stored)
        with _explained(source, placement, "tokenizer"):
            tokenizer = read_tokenizer(only)
        with _explained(source, placement, "weights"):
            model = _model(only, placement, family, config)
            if (how := settings_of(model.config)) is not None:
                check_linear(source.name, model, how)
            files = source.files()
            assert files is not None
            if facts is None:
                _check_files(source, model, files)
            else:
                check_claimed(source.name, model, facts)
            _check(source.name, tokenizer, model)
    stored_how = settings_of(config)  # the model's own has none where it was dequantised
    quantization = None if stored_how is None else described(stored_how)
    quantization = quantization if facts is None else facts.quantization
    return Loaded(tokenizer, model, files, stored, quantization)


def _family(source: ModelSource) -> tuple[Family, Any]:
    """The family of the model by its configuration, of a type without a row where its layers are; and that.

    Raises:
        DlbenchError: it brings code that may not run, or is of an unsupported type.
    """
    from transformers import AutoConfig

    if source.gguf is None and not source.trust_remote_code:
        _no_code(source)
    config = AutoConfig.from_pretrained(source.location, **source.at, trust_remote_code=source.trust_remote_code)
    kind = config.model_type
    try:
        row = FAMILIES.get(kind) or expected(config, trust_remote_code=source.trust_remote_code)
    except Unrecognised as reason:
        raise DlbenchError(unsupported(source.name, kind, str(reason))) from reason
    _check_sizes(source.name, config.get_text_config())
    return row, config


def _check_sizes(name: str, config: Any) -> None:
    """Refuse sizes that no model has, before memory is asked for.

    Raises:
        DlbenchError: one is absurd; the message names it.
    """
    for size, most in _MOST.items():
        value = getattr(config, size, None)
        if isinstance(value, int) and not 0 < value <= most:
            raise DlbenchError(cannot(name, f"its config.json has {size} = {value}, where 1 to {most:,} makes sense"))


def _stored(config: Any, source: ModelSource) -> str:
    """Dtype of a checkpoint that is no GGUF file: as its configuration says, or else that of its first weight."""
    given = str(getattr(config, "dtype", None) or "").removeprefix("torch.")
    if not given and (files := source.files()) is not None:
        given = first_dtype(weight_files(files))
    return given if given in ("float32", "bfloat16", "float16") else "float32"


def read_tokenizer(source: ModelSource) -> Any:
    """Read a tokenizer, which pads on the left."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(
        source.location, padding_side="left", **source.at, trust_remote_code=source.trust_remote_code
    )
    tokenizer("a b")  # with files missing, some classes fail only here
    return tokenizer


def _model(source: ModelSource, placement: Placement, family: Family, config: Any) -> Any:
    """The model with its weights, all of them from its files.

    Raises:
        DlbenchError: weights are missing, superfluous or of another shape.
    """
    from transformers import AutoModelForCausalLM

    device_map = placement.device_map
    if device_map is None and settings_of(config) is not None:
        device_map = {"": placement.device}  # some quantised weights cannot be moved once they are loaded
    with _pickles(source.trust_remote_code):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            **source.at,
            trust_remote_code=source.trust_remote_code,
            dtype=placement.dtype,
            attn_implementation=placement.attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report then names them; otherwise the error does not
            **({} if device_map is None else {"device_map": device_map}),
            **({} if source.gguf is None else {"config": config, **dequantising()}),
        )
    model, report = loaded
    judge(source.name, model, family.layers, report)
    fill(model)
    if settings_of(config) is not None and settings_of(model.config) is None:
        assert placement.dtype is not None
        _to_dtype(model, placement.dtype)
    if source.gguf is not None:
        plain(model)
    if device_map is None:
        model.to(placement.device)
    return model


@torch.no_grad()
def _to_dtype(model: Any, dtype: torch.dtype) -> None:
    """Bring a dequantised model to one dtype; without a scheme's kernels its weights come in that of their scales.

    What transformers keeps in float32 in any case stays so.
    """
    kept = set(model._get_dtype_plan(dtype))
    for name, weights in model.named_parameters():
        if weights.is_floating_point() and kept.isdisjoint(name.split(".")):
            weights.data = weights.data.to(dtype)


@contextmanager
def _pickles(trusted: bool) -> Iterator[None]:
    """Let pickled code in files of weights run: it is code that comes with the model, like that in Python files.

    transformers takes an argument `weights_only`, and does not pass it on.
    """
    from transformers import modeling_utils

    reader = modeling_utils.load_state_dict
    if trusted:
        modeling_utils.load_state_dict = partial(reader, weights_only=False)
    try:
        yield
    finally:
        modeling_utils.load_state_dict = reader


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
        raise explain(source.name, error, stage, source.files()) from error


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


def _check_files(source: ModelSource, model: Any, folder: Path) -> None:
    """Check files for faults that transformers reads without complaint.

    Raises:
        DlbenchError: generation_config.json is damaged, or a file of weights.
    """
    read_json(folder / "generation_config.json", {})
    floats = [] if settings_of(model.config) is not None else [name for name, _ in model.named_parameters()]
    if fault := contradiction(weight_files(folder), floats, pickles=source.trust_remote_code):
        raise DlbenchError(cannot(source.name, f"{fault}; fetch or copy it again"))


def _check(name: str, tokenizer: Any, model: Any) -> None:
    """Check what was loaded.

    Raises:
        DlbenchError: the tokenizer has no vocabulary, or weights are not finite.
    """
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise DlbenchError(cannot(name, NO_TOKENIZER))
    check_finite(name, model)


def check_finite(name: str, model: Any) -> None:
    """Check that a model's weights are numbers.

    Raises:
        DlbenchError: some are infinite, or not a number.
    """
    for _, weights in plain_tensors(model):
        if weights.is_floating_point() and not weights.is_meta:
            narrow = weights.element_size() == 1  # float8 has no test of its own
            if not bool(torch.isfinite(weights.float() if narrow else weights).all()):
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
