"""Paths that users give: what they lead to, and one-line errors where they are not valid; imports nothing heavy."""

from __future__ import annotations

import os
from pathlib import Path

from dlbench.errors import DlbenchError

GGUF = ".gguf"
"""Suffix of files that hold a whole model: weights, configuration and tokenizer."""
MODELS_VARIABLE = "DLBENCH_MODELS"
"""Environment variable that names the folder of prefetched models."""
_LONGEST_NAME = 200
"""Characters of the longest name that a record may hold."""


def expanded(path: Path, option: str) -> Path:
    """Expand `~` in a path (a shell does not after `=`), and resolve a path that ends in `..`, which has no name.

    Args:
        path: as it was given; it need not exist.
        option: the option that gave it, for messages.

    Raises:
        DlbenchError: there is no such home folder, or no such path can exist.
    """
    try:
        expanded_path = path.expanduser()
        if "\0" in str(expanded_path):
            raise ValueError("it holds a NUL character")
        expanded_path.exists()  # raises where it is too long, or leads through a folder that may not be read
        return expanded_path.resolve() if expanded_path.name == ".." else expanded_path
    except (OSError, RuntimeError, ValueError) as error:
        raise DlbenchError(f"{option} {brief(str(path))}: {reason(error)}; give another path") from error


def model_path(name: str) -> Path | None:
    """The folder or GGUF file that a model's name leads to; None where nothing is there, and it may be a hub name.

    Raises:
        DlbenchError: the name leads to another file, or can be neither a folder nor a name on the hub.
    """
    try:
        if "\0" in name:
            raise ValueError("it holds a NUL character")
        path = Path(name).expanduser()
        if name and (path.is_dir() or (path.suffix == GGUF and path.is_file())):
            return path
        if name and os.path.lexists(path):
            raise DlbenchError(_no_model(name, path))
        return None
    except (OSError, RuntimeError, ValueError) as error:
        raise DlbenchError(f"model {brief(name)!r}: {reason(error)}; give a folder or a hub name") from error


def _no_model(name: str, path: Path) -> str:
    """The message for a path that exists but is no model: what it is, and what to give."""
    if not path.exists():
        return f"model {brief(name)} is a link to {brief(os.readlink(path))}, which is not there: give a folder"
    wanted = "config.json, the weights and the tokenizer's files"
    return f"model {brief(name)} is a file: give the folder that holds {wanted}, or a .gguf file"


def models_folder() -> Path:
    """The folder that `dlbench prefetch` puts models into by default: DLBENCH_MODELS, or the user's cache."""
    if given := os.environ.get(MODELS_VARIABLE):
        return expanded(Path(given), MODELS_VARIABLE)
    return cache_folder() / "models"


def cache_folder() -> Path:
    """The folder in the user's cache that is dlbench's; it need not exist.

    Raises:
        DlbenchError: no such path can exist.
    """
    return expanded(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache"), "XDG_CACHE_HOME") / "dlbench"


def record_name(model: str | Path) -> str:
    """The name of a model in records: of a folder its own name, without characters that a record would refuse."""
    if isinstance(model, Path):
        model = (model if model.name not in ("", "..") else model.resolve()).name or str(model)
    name = os.fsencode(model).decode("utf-8", "replace")
    return brief("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name), _LONGEST_NAME)


def brief(text: str, most: int = 80) -> str:
    """Shorten a text to `most` characters; an ellipsis stands for the rest."""
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: Exception) -> str:
    """What is wrong, without the path, which may be too long to print."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).rstrip(".") or type(error).__name__
