"""What a method is audited on: a model, a fit split, and fresh documents whose references are decoys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, cast

from dlbench.audit import tiny
from dlbench.audit.method_case import Bench
from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.engine import Request
from dlbench.models.backbone import Backbone
from dlbench.prompting.tokenize import limited_prompt

COUNT = 4
"""Fresh documents."""
_FAMILY = "wide llama"
"""Wide enough that layers cost more than the Python code around them."""
_TOKENS = 12


@dataclass
class AuditBench:
    """A model with a fit split and fresh documents, which no reference of is in this process."""

    bench: Bench
    fresh: Sequence[Document]

    @classmethod
    def of(cls, model: str | None, task: str | None, data_dir: str | None, seed: int) -> AuditBench:
        """A tiny random model, or a model and a task of one's own, in float64.

        Args:
            model: folder or name; None for nano, or where `task` is None too for a tiny one.
            task: its name; None for nano_summary.
            data_dir: folder of local mirrors and prefetched models.
            seed: of the fresh documents: drawn from the task's generator where it has one, otherwise taken from the
                tune part.

        Raises:
            DlbenchError: the model or the task cannot be loaded, or there are too few documents.
        """
        if model is None and task is None:
            return cls(Bench.tiny(_FAMILY), tiny.prompts(COUNT, seed))
        bench = Bench.of(model or "nano", task or "nano_summary", data_dir)
        generator = bench.task.generator
        if generator is None:
            return cls(bench, [replace(d, references=()) for d in bench.tune[:COUNT]])
        module, _, name = generator.rpartition(".")
        limit = min(bench.task.max_new_tokens, _TOKENS)
        drawn = getattr(import_module(module), name)(bench.task.name, "test", COUNT, seed)
        return cls(bench, [Document(d.id, d.input, (), limit, (), i, None) for i, d in enumerate(drawn)])

    @property
    def backbone(self) -> Backbone:
        """The model."""
        return self.bench.backbone

    def posed(self, decoy: str, *, renamed: str = "") -> list[Document]:
        """The fresh documents as a run has them: with ids, and references that are `decoy`."""
        return [
            replace(d, id=f"{renamed}{d.id}", references=(f"{decoy} {index}",), split="test")
            for index, d in enumerate(self.fresh)
        ]

    def requests(self, documents: Sequence[Document]) -> list[Request]:
        """Their prompts as token ids."""
        backbone = self.backbone
        return [
            Request(d.id, tuple(limited_prompt(backbone, d, backbone.encode(d.prompt))), d.limit, d.stop, d.thinking)
            for d in documents
        ]


class WatchedTask:
    """A task that scores, and notes when it is asked for the documents that are scored."""

    def __init__(self, task: Task, note: Any) -> None:
        self._task, self._note = task, note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def documents(self, split: str, **options: Any) -> list[Document]:
        """Note the question."""
        self._note("test-split", f"task.documents({split!r})")
        return []

    @classmethod
    def of(cls, task: Task, note: Any) -> Task:
        """Wrap a task."""
        return cast(Task, cls(task, note))
