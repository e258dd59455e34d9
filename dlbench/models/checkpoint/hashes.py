"""Hashes that identify a model: over its files, and over its weights in memory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlbench.models.checkpoint.files import weight_files
from dlbench.system.cpu import cores

PIECE = 1 << 24
"""Bytes that are hashed, or copied from a GPU, at a time."""
_THREADS = 4
_SETTINGS = re.compile(
    r"config\.json|generation_config\.json|tokenizer.*|.*vocab.*|merges\.txt|.*tokens.*\.json|chat_template.*|.*\.model"
    r"|tekken\.json|.*\.tiktoken"
)


def fingerprint(folder: Path, *, code: bool = False) -> str:
    """sha256 over the weight, configuration and tokenizer files of a model folder, by name and content.

    Of a GGUF file, which holds all of these, it is the plain sha256 that publishers and `sha256sum` give.

    Logs, curves and cards do not change the model's output and are left out. So is an index of weight files; the files
    that it names count, in other folders too.

    Args:
        folder: the model's folder, or its GGUF file.
        code: whether Python files count too.
    """
    if folder.is_file():
        with folder.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    suffixes = (".safetensors", ".bin", ".py") if code else (".safetensors", ".bin")
    chosen = {p for p in folder.iterdir() if p.suffix in suffixes or _SETTINGS.fullmatch(p.name)}
    for path in sorted(p for p in chosen.union(weight_files(folder)) if p.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@torch.no_grad()
def weights_sha256(model: Any, files: str) -> str:
    """sha256 over a model's state dict in memory: names, dtypes, shapes and values.

    Tied weights are hashed once, and a head gives the same hash whether it is tied or an equal copy.

    Args:
        model: a loaded transformers model, before anything in it is changed.
        files: hash of the files, used for values that are offloaded to a disk.
    """
    tensors = plain_tensors(model)
    pieces: dict[tuple[Any, ...], list[Future[bytes]]] = {}
    with ThreadPoolExecutor(min(_THREADS, cores())) as pool:
        for _, tensor in tensors:
            if not tensor.is_meta and place_of(tensor) not in pieces:
                pieces[place_of(tensor)] = [pool.submit(piece) for piece in _pieces(tensor)]
        digest = hashlib.sha256()
        for name, tensor in tensors:
            digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            if tensor.is_meta:
                digest.update(f"not in memory: of files {files}\0".encode())
            else:
                digest.update(b"".join(piece.result() for piece in pieces[place_of(tensor)]))
    return digest.hexdigest()


def plain_tensors(model: Any) -> list[tuple[str, Tensor]]:
    """Name and values of every tensor in a model's state dict, by name; a quantised one in its parts."""
    return [part for name, value in sorted(model.state_dict().items()) for part in _plain(name, value)]


def _plain(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The plain tensors of an entry: the parts of a quantised tensor, none for an entry that is no tensor."""
    if hasattr(value, "__tensor_flatten__"):
        for inner in value.__tensor_flatten__()[0]:
            yield from _plain(f"{name}.{inner}", getattr(value, inner))
    elif isinstance(value, Tensor):
        yield name, value.detach()


def place_of(tensor: Tensor) -> tuple[Any, ...]:
    """Memory of a tensor's values: equal for tied tensors."""
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _pieces(tensor: Tensor) -> Iterator[Callable[[], bytes]]:
    """Functions that hash a tensor's bytes, PIECE by PIECE; hashing releases the GIL."""
    values = tensor.contiguous().reshape(-1)
    step = max(1, PIECE // values.element_size())

    def of(part: Tensor) -> bytes:
        return hashlib.sha256(part.cpu().view(torch.uint8).numpy().data).digest()

    for start in range(0, values.numel(), step):
        yield lambda part=values[start : start + step]: of(part)  # type: ignore[misc]
