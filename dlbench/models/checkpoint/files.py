"""Files of a checkpoint: which of them hold the weights, and whether they are complete."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from dlbench.errors import DlbenchError

ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""Files that PEFT saves beside, or instead of, a model's weights."""
_ZEROS = 256
"""Zero bytes at the end of a tensor that are no chance."""
_POINTER = b"version https://git-lfs"
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0", "F4")
_DTYPES = (*_FLOATS, "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
"""Names in safetensors of the dtypes that torch has."""


class FileError(DlbenchError):
    """A file of a model cannot be read; the message begins with its path."""


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers would read the weights from, whether they exist or not; empty where it finds none.

    Raises:
        FileError: an index of weight files cannot be read.
    """
    named = read_json(folder / "config.json", {}).get("transformers_weights")
    names = ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"]
    path = next((folder / n for n in ([named] if isinstance(named, str) else names) if (folder / n).is_file()), None)
    if path is None:
        return []
    if not path.name.endswith(".index.json"):
        return [path]
    where = read_json(path).get("weight_map")
    if not (isinstance(where, dict) and where and all(isinstance(name, str) for name in where.values())):
        raise FileError(f"{path} has no weight_map, which says which file holds which weights")
    return [folder / name for name in sorted(set(where.values()))]


def read_json(path: Path, absent: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: the file.
        absent: result where there is no such file; None: a missing file is an error.

    Raises:
        FileError: it cannot be read, or is no JSON object.
    """
    if absent is not None and not path.exists():
        return absent
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise FileError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise FileError(f"{path} holds no JSON object")
    return content


def first_dtype(paths: Sequence[Path]) -> str:
    """Torch's name of the dtype of the first floating-point weight in safetensors files; empty where it is unknown.

    Raises:
        FileError: a file cannot be read.
    """
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    for path in paths:
        if path.suffix == ".safetensors" and path.is_file():
            whole(path)
            if held := next((names[str(t["dtype"])] for t in _tensors(path).values() if str(t["dtype"]) in names), ""):
                return held
    return ""


def contradiction(paths: Sequence[Path], wanted: Collection[str], *, pickles: bool = False) -> str:
    """Describe a fault in weight files that reads without an error; empty where there is none.

    Such are a copy that broke off, a failed checksum, one weight in two files, and a wrong dtype.

    Args:
        paths: the files, all of which exist.
        wanted: names of the model's floating-point weights; a file may leave the first part of a name off, or have one
            part more.
        pickles: whether pickled code in files that torch saved may run.

    Raises:
        FileError: the header of a file cannot be read.
    """
    ends = {name.partition(".")[2] for name in wanted}
    homes: dict[str, Path] = {}
    for path in paths:
        if path.suffix == ".safetensors" and (damage := broken_off(path)):
            return damage
        if path.suffix != ".safetensors" and (part := _altered(path)):
            return f"{path} is damaged in {part}, which is not what it was when it was saved"
        for name, dtype in _dtypes(path, pickles).items():
            if name in homes:
                return f"{homes[name]} and {path} both hold {name}: keep one of them"
            homes[name] = path
            if dtype not in _FLOATS and (name in wanted or name in ends or name.partition(".")[2] in wanted):
                return f"{path} holds {name} as {dtype}, which is no floating-point number"
    return ""


def _altered(path: Path) -> str | None:
    """The first part of a file saved by torch whose checksum fails; None where all are right."""
    if not zipfile.is_zipfile(path):  # saved by a release before 1.6
        return None
    with zipfile.ZipFile(path) as parts:
        return parts.testzip()


def _dtypes(path: Path, pickles: bool) -> dict[str, str]:
    """Name of each tensor → dtype, by its name in safetensors where it has one."""
    if path.suffix == ".safetensors":
        return {name: str(entry["dtype"]) for name, entry in _tensors(path).items()}
    import torch

    content = torch.load(path, map_location="meta", weights_only=not pickles)
    held = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    return {name: "F32" if value.is_floating_point() else str(value.dtype) for name, value in held.items()}


def _tensors(path: Path) -> dict[str, Any]:
    """Name of each tensor → its entry in the header of a safetensors file."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def broken_off(path: Path) -> str:
    """Describe a copy that broke off in a safetensors file of the right length; empty where there is none."""
    with path.open("rb") as file:
        first = 8 + int.from_bytes(file.read(8), "little")
    entries = [(*entry["data_offsets"], name) for name, entry in _tensors(path).items()]
    return cut_tensor(path, first, [(first + begin, first + end, name) for begin, end, name in entries])


def cut_tensor(path: Path, first: int, spans: Sequence[tuple[int, int, str]]) -> str:
    """Describe zeros at the end of a file that begin inside a tensor; empty where there are none.

    A copy into preallocated space that breaks off leaves zeros from some byte on, usually from the middle of a tensor.
    Weights that really are zero fill whole tensors.

    Args:
        path: the file.
        first: byte at which the tensors begin.
        spans: begin, end and name of each tensor.
    """
    with path.open("rb") as file:
        last = file.seek(0, 2)
        zeros = _trailing_zeros(file, first, last)
    cut = last - zeros
    cut_tensors = [(end, name) for begin, end, name in sorted(spans) if begin < cut <= end - _ZEROS]
    if not cut_tensors or cut_tensors[0][0] >= max(end for _, end, _ in spans):
        return ""
    return f"{path} ends in {zeros:,} zero bytes, which begin inside {cut_tensors[0][1]}: its copying broke off"


def _trailing_zeros(file: BinaryIO, first: int, last: int) -> int:
    """Number of zero bytes at the end of a file, not counting those before byte `first`."""
    end = last
    while end > first:
        start = max(first, end - (1 << 20))
        file.seek(start)
        if kept := file.read(end - start).rstrip(b"\0"):
            return last - start - len(kept)
        end = start
    return last - first


def whole(path: Path) -> None:
    """Check that a file is complete and of the kind that its name says.

    Raises:
        FileError: it is empty, cut off, or of another kind.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1 << 10)
        if not head:
            raise FileError(f"{path} is empty: fetch or copy it again")
        if head.startswith(_POINTER):
            raise FileError(f"{path} is a pointer of Git LFS, not the file: run `git lfs pull` in its repository")
        if head.lstrip()[:1] == b"<":
            raise FileError(f"{path} is a web page, not the file: fetch it again")
        if not head.strip(b"\0"):
            raise FileError(f"{path} is filled with zeros, not with its content: fetch or copy it again")
    if path.suffix == ".safetensors":
        _whole_safetensors(path, head, size)
    elif path.suffix == ".bin" and not head.startswith((b"PK", b"\x80")):
        raise FileError(f"{path} is no file that torch saved: fetch or copy it again")
    elif head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise FileError(f"{path} is cut off after {size:,} bytes: fetch or copy it again")


def _whole_safetensors(path: Path, head: bytes, size: int) -> None:
    length = int.from_bytes(head[:8], "little")
    if size < 8 + length:
        what = "is cut off" if head[8:9] == b"{" else "is no safetensors file"
        raise FileError(f"{path} {what}, {size:,} bytes long: fetch or copy it again")
    try:
        tensors = _tensors(path).values()
        ends = [entry["data_offsets"][1] for entry in tensors]
        dtypes = sorted({str(entry["dtype"]) for entry in tensors})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is damaged, its header cannot be read: fetch or copy it again") from error
    if size != (due := 8 + length + max(ends, default=0)):
        what = "is cut off" if size < due else "is too long"
        raise FileError(f"{path} {what}: {size:,} bytes of {due:,}; fetch or copy it again")
    if strange := [dtype for dtype in dtypes if dtype not in _DTYPES]:
        raise FileError(f"{path} holds weights of dtype {strange[0]}, which torch cannot read")
