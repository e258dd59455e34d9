"""What a fit leaves: parameters as JSON, weights as safetensors, in a folder named by a content key."""

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
    """What is known of a fit."""

    method: str
    task: str
    seed: int
    budget: float | None
    """The layer share aimed at; None where nothing was."""
    realised: float | None = None
    """The layer share of the documents that the knob was tuned on, as they were written at last."""
    learnt_from: int = 0
    """Documents."""
    tuned_on: int = 0
    """Documents."""
    tokens: int = 0
    """Tokens that went through the backbone, forward, to learn and to tune."""
    seconds: float = 0.0


def _shipped() -> Path:
    return Path(str(files("dlbench.tasks.nano"))) / "fits"


def find_artifact(key: str, folders: Sequence[Path]) -> Path | None:
    """The folder of a fitted artifact, among the user's and those that ship with the package."""
    return next((f / key for f in (*folders, _shipped()) if (f / key / "fit.json").is_file()), None)


def save_artifact(folder: Path, method: Method, facts: Facts) -> None:
    """Write weights, then `fit.json`, which makes the artifact complete."""
    folder.mkdir(parents=True, exist_ok=True)
    if weights := method.weights():
        save_file({k: v.contiguous().cpu() for k, v in weights.items()}, folder / "weights.safetensors")
    content = {"params": method.params(), **asdict(facts)}
    write_text(folder / "fit.json", json.dumps(content, indent=1, sort_keys=True) + "\n")


def load_artifact(folder: Path, cls: type[Method]) -> tuple[Method, Facts]:
    """The fitted method and what is known of its fit.

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
