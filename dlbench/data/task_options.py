"""Options of `dlbench run` for tasks: where they come from, and what is changed of them."""

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
    """The options; with equal options, a name gives equal tasks."""

    data_dir: str | None = None
    """Folder of local mirrors; None takes the hub or its cache."""
    include: tuple[str, ...] = ()
    """Folders with task YAML of the user's own."""
    fewshot: int | None = None
    """Few-shot examples in the prompt; None takes the task's own number."""
    max_new_tokens: int | None = None
    """Most new tokens; None takes the task's own limit."""
    template: str | None = None
    """Prompt of file tasks: a text that contains `{input}`."""
    metric: str | None = None
    """Primary metric of file tasks."""
    system_instruction: str | None = None
    """Text before every prompt: the system's message of a chat, as lm-eval puts it."""

    def check(self, tasks: tuple[str, ...]) -> None:
        """Check what can be checked without reading data.

        Raises:
            DlbenchError: a folder is missing, a number is too small, or an option for file tasks is given without one.
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

    @property
    def changes_prompts(self) -> bool:
        """Whether a task's own prompts or limits are changed."""
        return (self.fewshot, self.max_new_tokens, self.system_instruction) != (None, None, None)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Build from `dataclasses.asdict` after a round trip through JSON."""
        return cls(**{**content, "include": tuple(content["include"])})


def is_file_task(task: str) -> bool:
    """Whether a task is given as a file of documents (`file:PATH`)."""
    return task.startswith("file:")
