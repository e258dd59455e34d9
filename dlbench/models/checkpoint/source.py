"""Where a model comes from, how its weights are to be loaded, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch


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
    gguf: Path | None = None
    """The GGUF file that holds all of the model; None where it lies in several files, as transformers saves it."""

    @property
    def at(self) -> dict[str, str]:
        """Arguments of transformers' readers that select the revision, or the GGUF file."""
        if self.gguf is not None:
            return {"gguf_file": str(self.gguf.resolve())}
        return {"revision": self.revision} if self.revision else {}

    def files(self) -> Path | None:
        """The folder of the model's files, or its GGUF file; None where the hub's cache has none of them."""
        if self.gguf is not None:
            return self.gguf
        if Path(self.location).is_dir():
            return Path(self.location)
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.location, revision=self.revision or None, local_files_only=True))
        except Exception:  # the hub's library raises many types
            return None

    @contextmanager
    def alone(self) -> Iterator[Self]:
        """Hide from transformers what lies beside a GGUF file, such as the tokenizer of another model."""
        if self.gguf is None:
            yield self
            return
        with TemporaryDirectory() as empty:
            yield replace(self, location=empty)


@dataclass(frozen=True)
class Placement:
    """How weights are loaded."""

    device: str
    dtype: torch.dtype | None
    """None: the checkpoint's own; for float32 on a CUDA GPU bfloat16."""
    attention: str | None = None
    """transformers' attention implementation; None takes the library's default."""
    device_map: Any = None
    """How transformers spreads the layers over devices; None: all on `device`."""

    def settled(self, stored: str) -> Placement:
        """Return the placement with its dtype decided.

        Args:
            stored: dtype of the checkpoint's own.
        """
        if self.dtype is not None:
            return self
        wide = stored == "float32" and self.device.startswith("cuda")
        return replace(self, dtype=torch.bfloat16 if wide else getattr(torch, stored))

    @property
    def too_large(self) -> str:
        """For messages: the weights do not fit."""
        return f"{str(self.dtype).removeprefix('torch.')} does not fit the memory of {self.device}"


@dataclass(frozen=True)
class Loaded:
    """A model that was read."""

    tokenizer: Any
    model: Any
    files: Path
    """The folder of its files, or its GGUF file."""
    stored: str
    """Dtype of the checkpoint's own."""
    quantization: str | None
    """How the checkpoint's weights are quantised; None where they are not."""
