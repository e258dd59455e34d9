"""Where tasks come from and what a run changes of them: the options of `dlbench run` that concern tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dlbench.errors import DlbenchError
from dlbench.tasks import metrics
from dlbench.terminal.suggest import unknown

CHAT = ("auto", "on", "off")


@dataclass(frozen=True)
class Sources:
    """Equal sources give equal tasks."""

    data_dir: str | None = None
    """A folder of local mirrors; None asks the hub, or what the hub's cache holds."""
    include: tuple[str, ...] = ()
    """Folders with task YAML of the user's own."""
    fewshot: int | None = None
    """Examples in the prompt; None takes the task's own number."""
    max_new_tokens: int | None = None
    """Most new tokens; None takes the task's own limit."""
    template: str | None = None
    """Prompt of a task that is a file: a text with `{input}` in it."""
    metric: str | None = None
    """Primary metric of a task that is a file."""

    def check(self, tasks: tuple[str, ...]) -> None:
        """Check what can be checked without reading data.

        Raises:
            DlbenchError: a folder is missing, a number is too small, or an option is for files and no task is one.
        """
        if self.data_dir is not None and not Path(self.data_dir).expanduser().is_dir():
            raise DlbenchError(f"no folder {self.data_dir} for --data-dir: give the folder that holds the mirrors")
        for folder in self.include:
            if not Path(folder).expanduser().is_dir():
                raise DlbenchError(f"no folder {folder} for --include-path: give a folder with task YAML")
        if self.fewshot is not None and self.fewshot < 0:
            raise DlbenchError(f"fewshot {self.fewshot}: give 0 or more examples")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise DlbenchError(f"max new tokens {self.max_new_tokens}: give at least 1")
        if self.metric is not None and self.metric not in metrics.of_files():
            raise unknown("metric", self.metric, metrics.of_files())
        if self.template is not None and "{input}" not in self.template:
            raise DlbenchError(f"template {self.template!r} has no {{input}}, where the text of a document goes")
        for option, value in (("--template", self.template), ("--metric", self.metric)):
            if value is not None and not any(is_file_task(task) for task in tasks):
                raise DlbenchError(f"{option} is for tasks given as file:PATH.jsonl; other tasks have their own")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Build from what JSON kept of `dataclasses.asdict`."""
        return cls(**{**content, "include": tuple(content["include"])})


def is_file_task(task: str) -> bool:
    """Whether a task is a user's own file of documents."""
    return task.startswith("file:")
