"""The options of `dlbench bench`, and the checks of whether it can be carried out; imports nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dlbench.bench.targets import PARTS
from dlbench.errors import DlbenchError
from dlbench.models.catalog import DTYPES
from dlbench.terminal.suggest import unknown


@dataclass(frozen=True)
class Options:
    """The options of one benchmark run."""

    quick: bool = False
    out: Path | None = None
    """The JSON file; None for none."""
    threads: int | None = None
    """None for torch's default."""
    device: str = "auto"
    dtype: str | None = None
    """None: float32 on a CPU, bfloat16 on a GPU."""
    only: str | None = None
    """Parts, separated by commas; None for all."""

    def check(self) -> None:
        """Check all that can be checked without torch, before minutes of measuring.

        Raises:
            DlbenchError: an option is invalid; the message says what would be valid.
        """
        self.parts()
        if self.threads is not None and self.threads < 1:
            raise DlbenchError(f"{self.threads} threads: give at least 1")
        if self.dtype is not None and self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.out is not None:
            folder = self.out.absolute().parent
            if self.out.is_dir():
                raise DlbenchError(f"--json {self.out} is a folder: give a file")
            if not folder.is_dir() or not os.access(self.out if self.out.exists() else folder, os.W_OK):
                raise DlbenchError(f"--json {self.out} cannot be written: give a file in a folder that can be")

    def parts(self) -> tuple[str, ...]:
        """Return the parts to run, in their own order.

        Raises:
            DlbenchError: there is no such part, or none is named.
        """
        if self.only is None:
            return tuple(PARTS)
        names = [name.strip() for name in self.only.split(",") if name.strip()]
        if not names:
            raise DlbenchError(f"--only names nothing: there is {', '.join(PARTS)}")
        for name in names:
            if name not in PARTS:
                raise unknown("part of the benchmark", name, PARTS)
        return tuple(part for part in PARTS if part in names)
