"""The options of `dlbench bench`, and the checks of whether it can be carried out; imports nothing heavy."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from dlbench.bench.targets import MODEL_PARTS, PARTS
from dlbench.data import resolve
from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.models.catalog import DTYPES, check_model
from dlbench.terminal.suggest import unknown


@dataclass(frozen=True)
class Subject:
    """A model to benchmark, and the tasks for its end-to-end part."""

    model: str
    """Embedded model, folder or hub name."""
    tasks: tuple[str, ...] = ()
    """Names of tasks, with suites already replaced by their tasks."""
    sources: Sources = field(default_factory=Sources)

    @classmethod
    def of(
        cls, model: str, tasks: tuple[str, ...], data_dir: str | None, fewshot: int | None, *, quick: bool
    ) -> Subject:
        """Build from what the user gave.

        Args:
            model: its name.
            tasks: names; none for those of nano, or of pocket for other models; a quick run takes data2text alone.
            data_dir: folder of local mirrors and prefetched models.
            fewshot: examples in the prompts; None for the tasks' own number.
            quick: whether the run is quick.

        Raises:
            DlbenchError: there is no such model or task, or an option of the tasks is invalid.
        """
        check_model(model, data_dir)
        sources = Sources(data_dir, fewshot=fewshot)
        sources.check(tasks)
        suite = "nano" if model.startswith("nano") else "pocket"
        names = tasks or ((f"{suite}_data2text",) if quick else (suite,))
        missing = resolve.without_data(names, sources)
        return cls(model, tuple(name for name in resolve.expand_tasks(names, sources) if name not in missing), sources)


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
    subject: Subject | None = None
    """The model to benchmark; None: models of random weights, and nano."""
    as_json: bool = False
    """Whether standard output gets the JSON file's content, and standard error what is for people."""

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
                raise DlbenchError(f"--out {self.out} is a folder: give a file")
            if not folder.is_dir() or not os.access(self.out if self.out.exists() else folder, os.W_OK):
                raise DlbenchError(f"--out {self.out} cannot be written: give a file in a folder that can be")

    def parts(self) -> tuple[str, ...]:
        """Return the parts to run, in their own order.

        Raises:
            DlbenchError: there is no such part, or none is named.
        """
        parts = PARTS if self.subject is None else MODEL_PARTS
        if self.only is None:
            return tuple(parts)
        names = [name.strip() for name in self.only.split(",") if name.strip()]
        if not names:
            raise DlbenchError(f"--only names nothing: there is {', '.join(parts)}")
        for name in names:
            if name in PARTS and name not in parts:
                raise DlbenchError(f"--only {name}: of a --model there is {', '.join(parts)}")
            if name not in parts:
                raise unknown("part of the benchmark", name, parts)
        return tuple(part for part in parts if part in names)
