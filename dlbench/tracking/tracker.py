"""What a tracker does with a run, and which trackers there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dlbench.errors import DlbenchError
from dlbench.terminal.suggest import unknown

Row = Mapping[str, str | int | float | None]
"""A record, flat: see `dlbench.tracking.rows`."""
PROJECT = "dlbench"
"""Project of runs in trackers that have projects, unless their own environment variable names another."""
TRACKERS = {
    "wandb": "dlbench.tracking.to_wandb:Wandb",
    "trackio": "dlbench.tracking.to_trackio:Trackio",
    "tensorboard": "dlbench.tracking.to_tensorboard:TensorBoard",
}
"""Name of a tracker, which is that of its package and of its extra too, and its class."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run when it begins.

    Attributes:
        name: of the run.
        folder: of the run, which exists.
        config: all options and the machine, of JSON.
        offline: whether no network may be used.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    offline: bool


class Tracker(ABC):
    """One run in one tracker."""

    @abstractmethod
    def begin(self, run: TrackedRun) -> None:
        """Open the run, with its config."""

    @abstractmethod
    def advance(self, work: str, done: int, of: int) -> None:
        """Log how far a kind of work is: `work` is "fit", "decode" or "time"."""

    @abstractmethod
    def rows(self, rows: Sequence[Row]) -> None:
        """Log the records of the run, which is done."""

    @abstractmethod
    def end(self, ok: bool) -> None:
        """Close the run; `ok` is False where it failed or was stopped."""


def check(names: Iterable[str]) -> None:
    """Raise unless every tracker is known and its package there; nothing is imported.

    Raises:
        DlbenchError: a name is unknown, or a package is missing; the message names the extra.
    """
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise DlbenchError(f"--track {name}: its package is missing; pip install 'dlbench[{name}]'")


def make(name: str) -> Tracker:
    """Return a tracker by its name."""
    module, _, cls = TRACKERS[name].partition(":")
    tracker = getattr(import_module(module), cls)()
    assert isinstance(tracker, Tracker)
    return tracker
