"""Which fits a run with --refit has made: one empty file each in the run's folder, until that run is finished.

So it goes on where it was stopped, and what an earlier run made counts as old whatever the clock says.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import final

from dlbench.system.files import naming

REFITTED = "refitted"
"""Name of the folder."""


@final
class Refitted:
    """The fits that have been made again.

    Args:
        out: the run's folder.
    """

    def __init__(self, out: Path) -> None:
        self._folder = out / REFITTED

    def add(self, key: str) -> None:
        """Note a fit that has been made.

        Raises:
            RecordError: that cannot be written.
        """
        with naming(self._folder / key):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / key).touch()

    def has(self, key: str) -> bool:
        """Whether a fit has been made again."""
        return (self._folder / key).is_file()

    def forget(self) -> None:
        """End the run: to another one with --refit all fits are old."""
        shutil.rmtree(self._folder, ignore_errors=True)
