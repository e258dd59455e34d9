"""Folders that people name: what a name leads to, and one line where no file system takes it; imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from dlbench.errors import DlbenchError

_LONGEST_NAME = 200
"""Characters that a record takes."""


def expanded(path: Path, option: str) -> Path:
    """A path with `~` expanded (a shell leaves it alone after `=`), and with a name of its own where it ends in `..`.

    Args:
        path: as it was given; nothing need be there.
        option: that gave it, for messages.

    Raises:
        DlbenchError: nobody has such a home folder, or there can be no such path.
    """
    try:
        found = path.expanduser()
        if "\0" in str(found):
            raise ValueError("it holds a NUL character")
        found.exists()  # raises where it is too long, or leads through a folder that may not be read
        return found.resolve() if found.name == ".." else found
    except (OSError, RuntimeError, ValueError) as error:
        raise DlbenchError(f"{option} {brief(str(path))}: {reason(error)}; give another path") from error


def model_folder(name: str) -> Path | None:
    """The folder that a model is given by; None where there is none of that name, and it may be a hub name.

    Raises:
        DlbenchError: the name is neither, and cannot be.
    """
    try:
        if "\0" in name:
            raise ValueError("it holds a NUL character")
        path = Path(name).expanduser()
        if name and path.is_dir():
            return path
        if name and os.path.lexists(path):
            raise DlbenchError(_no_folder(name, path))
        return None
    except (OSError, RuntimeError, ValueError) as error:
        raise DlbenchError(f"model {brief(name)!r}: {reason(error)}; give a folder or a hub name") from error


def _no_folder(name: str, path: Path) -> str:
    """Say what a path is that is there and no folder, and what to give."""
    if not path.exists():
        return f"model {brief(name)} is a link to {brief(os.readlink(path))}, which is not there: give a folder"
    wanted = "config.json, the weights and the tokenizer's files"
    if path.suffix == ".gguf":
        return f"model {brief(name)} is a GGUF file, which dlbench does not read: give a folder with {wanted}"
    return f"model {brief(name)} is a file: give the folder that holds {wanted}"


def record_name(model: str | Path) -> str:
    """How a model is named in records: a folder by its own name, and nothing that a record would refuse."""
    if isinstance(model, Path):
        model = (model if model.name not in ("", "..") else model.resolve()).name or str(model)
    name = os.fsencode(model).decode("utf-8", "replace")
    return brief("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name), _LONGEST_NAME)


def brief(text: str, most: int = 80) -> str:
    """A text that fits a line: its beginning, where it is longer."""
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: Exception) -> str:
    """What is wrong, without the path, which may be as long as the trouble is about."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).rstrip(".") or type(error).__name__
