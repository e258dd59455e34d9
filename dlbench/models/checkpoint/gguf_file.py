"""GGUF files: one file with weights, configuration, tokenizer and chat template, read by transformers' own reader.

transformers dequantises the weights into a plain model. Everything comes out of the file: what else lies in its folder,
such as a tokenizer of another model, is not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.models.checkpoint.files import FileError, cut_tensor, whole
from dlbench.system.paths import GGUF

_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types of tensors that are not quantised → torch's name."""


@dataclass(frozen=True)
class GgufFacts:
    """What a GGUF file says about itself."""

    path: Path
    architecture: str
    quantization: str | None
    """Such as "gguf Q4_K_M"; None where no weight is quantised."""
    dtype: str
    """Dtype of most of the weights; float32 where they are quantised, since the scheme has none of its own."""
    tensors: tuple[str, ...]
    """Names of the tensors."""


def only_gguf(folder: Path) -> Path | None:
    """The GGUF file of a folder that holds no other weights; None where there is none.

    Raises:
        FileError: there are several.
    """
    files = sorted(path for path in folder.glob(f"*{GGUF}") if path.is_file())
    if len(files) > 1:
        some = ", ".join(path.name for path in files[:3])
        raise FileError(f"{folder} holds {len(files)} GGUF files ({some}): give the path of one of them")
    return files[0] if files else None


def read_facts(path: Path) -> GgufFacts:
    """Read the header of a GGUF file, and check that the file is whole.

    Raises:
        FileError: it is no GGUF file, is cut off or damaged, or is one part of several.
    """
    from gguf import GGUFReader, LlamaFileType

    whole(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise FileError(f"{path} is no GGUF file, whatever its name says: fetch it again")
    try:
        reader = GGUFReader(str(path.resolve()))
        architecture = str(reader.fields["general.architecture"].contents())
        parts = reader.fields["split.count"].contents() if "split.count" in reader.fields else 1
        kind = reader.fields["general.file_type"].contents() if "general.file_type" in reader.fields else None
    except Exception as error:  # numpy's and python's, wherever the bytes end or make no sense
        raise FileError(f"{path} is cut off or damaged, {size:,} bytes long: fetch or copy it again") from error
    if int(parts) > 1:
        raise FileError(f"{path} is one of {parts} parts: merge them into one file first (llama-gguf-split --merge)")
    spans = [(int(t.data_offset), int(t.data_offset + t.n_bytes), t.name) for t in reader.tensors]
    if damage := cut_tensor(path, min((begin for begin, _, _ in spans), default=size), spans):
        raise FileError(f"{damage}; fetch or copy it again")
    amount: Counter[str] = Counter()
    for tensor in reader.tensors:
        amount[tensor.tensor_type.name] += int(tensor.n_elements)
    named = LlamaFileType(kind).name.partition("_")[2] if kind in set(LlamaFileType) else None
    names = tuple(str(tensor.name) for tensor in reader.tensors)
    return GgufFacts(path, architecture, _quantization(amount, named), _dtype(amount), names)


def _quantization(amount: Counter[str], named: str | None) -> str | None:
    """Name of the scheme: the file's own name for it, or else the type of most of the quantised values."""
    quantised = Counter({kind: count for kind, count in amount.items() if kind not in _FLOATS})
    if not quantised:
        return None
    most = quantised.most_common(1)[0][0]
    # A file's own name is a mixture such as Q4_K_M; it is wrong where a tool copied it from an unquantised file.
    return f"gguf {named if named and named.split('_')[0] == most.split('_')[0] else most}"


def _dtype(amount: Counter[str]) -> str:
    most = amount.most_common(1)
    return _FLOATS.get(most[0][0], "float32") if most else "float32"


@contextmanager
def parsed_once() -> Iterator[None]:
    """Keep the parsed header of a GGUF file while transformers reads it, and its progress bar off the terminal.

    transformers parses the header anew for configuration, tokenizer and weights, which takes seconds each time because
    of the vocabulary, and makes the table of tensors' names anew for every module of the model.

    Raises:
        DlbenchError: the package `gguf` is not installed.
    """
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise DlbenchError("GGUF files need the package gguf: pip install 'dlbench[gguf]'") from error
    from transformers import modeling_gguf_pytorch_utils as transformers_reader

    swapped = [
        (gguf, "GGUFReader", cache(gguf.GGUFReader)),
        (gguf, "get_tensor_name_map", cache(gguf.get_tensor_name_map)),
        (transformers_reader, "tqdm", lambda tensors, **_: tensors),
    ]
    before = [getattr(module, name) for module, name, _ in swapped]
    for module, name, value in swapped:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(swapped, before, strict=True):
            setattr(module, name, value)


def dequantising() -> dict[str, Any]:
    """Arguments that make transformers dequantise all weights; releases without the choice always do."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def plain(model: Any) -> None:
    """Make a dequantised model like any other, so that it can be saved."""
    for owner, name in ((model, "hf_quantizer"), (model.config, "quantization_config")):
        if name in vars(owner):
            delattr(owner, name)
    model.config.dtype = model.dtype


def check_claimed(name: str, model: Any, facts: GgufFacts) -> None:
    """Check that every tensor of the file has a place in the model; transformers' reader drops others silently.

    Raises:
        DlbenchError: it drops some.
    """
    from transformers import modeling_gguf_pytorch_utils as reader

    if facts.architecture not in _named_one_by_one(reader):
        return
    kind: Any = reader.TENSOR_PROCESSORS.get(facts.architecture, reader.TensorProcessor)
    claimed = set(reader.get_gguf_hf_weights_map(model, kind(config=model.config.to_dict())))
    # experts, which are one parameter of the model, are claimed without the suffix
    dropped = [name for name in facts.tensors if name not in claimed and name.removesuffix(".weight") not in claimed]
    if dropped:
        some = ", ".join(dropped[:3]) + (", …" if len(dropped) > 3 else "")
        raise DlbenchError(
            f"cannot load model {name!r} whole: transformers' reader of GGUF drops {len(dropped)} of its "
            f"{len(facts.tensors)} tensors ({some}); take the model's safetensors files"
        )


def _named_one_by_one(reader: Any) -> set[str]:
    """Architectures whose tensors transformers maps by name alone; for newer ones its loading report names the rest."""
    try:
        from transformers.integrations.gguf import GGUF_ARCHS  # type: ignore[attr-defined]
    except ImportError:
        GGUF_ARCHS = {}
    return set(reader.GGUF_SUPPORTED_ARCHITECTURES) - set(GGUF_ARCHS) - {"gpt_oss", "gpt-oss"}
