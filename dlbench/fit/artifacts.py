"""Fitted artifacts: parameters as JSON and weights as safetensors, in a folder named by a content key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dlbench.errors import DlbenchError
from dlbench.method import Method, Router
from dlbench.system.files import write_text


@dataclass(frozen=True)
class Facts:
    """How a fit was made."""

    method: str
    task: str
    seed: int
    budget: float | None
    """Target layer share; None for a fit without one."""
    realised: float | None = None
    """Free-running layer share at the tuned knob, on the documents that it was tuned on."""
    learnt_from: int = 0
    """Number of documents."""
    tuned_on: int = 0
    """Number of documents."""
    tokens: int = 0
    """Tokens that went through the backbone, forward, for learning and tuning."""
    seconds: float = 0.0
    foretold: float | None = None
    """Seconds that were foretold; None where that was not possible."""


def shipped_folders() -> list[Path]:
    """Folders of the fits that come with the package: of nano, and of SmolLM2 on the tasks of `pocket`."""
    return [Path(str(files("dlbench.tasks"))) / suite / "fits" for suite in ("nano", "pocket")]


def find_artifact(key: str, folders: Sequence[Path]) -> Path | None:
    """The folder of a fitted artifact, in the user's folders or among those shipped with the package; None for none."""
    return next((f / key for f in (*folders, *shipped_folders()) if (f / key / "fit.json").is_file()), None)


def save_artifact(folder: Path, method: Method, facts: Facts) -> None:
    """Write the weights, then `fit.json`: an artifact without it is incomplete."""
    folder.mkdir(parents=True, exist_ok=True)
    if weights := method.weights():
        save_file({k: v.contiguous().cpu() for k, v in weights.items()}, folder / "weights.safetensors")
    content = {"params": method.params(), **asdict(facts)}
    write_text(folder / "fit.json", json.dumps(content, indent=1, sort_keys=True) + "\n")


def load_artifact(folder: Path, cls: type[Method]) -> tuple[Method, Facts]:
    """Load the fitted method and how it was made.

    Raises:
        DlbenchError: the artifact is damaged.
    """
    try:
        content = json.loads((folder / "fit.json").read_text())
        method = cls.from_params(content.pop("params"))
        facts = Facts(**content)
        if (weights := folder / "weights.safetensors").is_file():
            method.load_weights(load_file(weights))
        elif isinstance(method, Router):
            raise ValueError("weights.safetensors is missing")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise DlbenchError(f"the fit in {folder} is damaged ({error}); delete that folder to fit again") from error
    return method, facts
