"""What people are told before a run decodes anything: what is cut, left out, or done as the model asks."""

from __future__ import annotations

from collections.abc import Sequence

from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.data.thinking import Thinking
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.evaluation.reference_check import complaints
from dlbench.models.backbone import Backbone
from dlbench.models.catalog import AUTO, INT8
from dlbench.models.quantization import plain_share
from dlbench.prompting.tokenize import Prompted
from dlbench.running.config import RunSpec
from dlbench.terminal.progress import Progress


def limit_line(spec: RunSpec) -> str | None:
    """Say how many documents a run takes, since lm-eval takes all where no limit is given; None where it takes all."""
    if spec.limit is None:
        return None
    which = f"the first {spec.limit:,}" if spec.limit_first else f"a sample of {spec.limit:,}"
    return f"of each task {which} of the documents; --limit all takes all"


class Notices:
    """Prints notices about tasks and models, each once."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._generation_configs: set[str] = set()
        """Lines about the models' generation_config that were printed."""
        self._complaints: dict[str, tuple[str, ...]] = {}
        """Task → what is wrong with its metric."""

    def checkpoint(self, backbone: Backbone, dtype: str) -> None:
        """Say what was made of a checkpoint: another dtype than its own, floating-point weights, or a merged adapter.

        Args:
            backbone: as it was loaded.
            dtype: that was asked for.
        """
        if dtype == AUTO and backbone.stored_dtype != backbone.dtype:
            self.progress.note(
                f"{backbone.name}: its weights are {backbone.stored_dtype}, and run in {backbone.dtype} on a GPU; "
                f"--dtype {backbone.stored_dtype} keeps them"
            )
        if backbone.adapter_of:
            self.progress.note(f"{backbone.name}: an adapter, merged into {backbone.adapter_of}")

    def thinking(self, task: Task, backbone: Backbone, thinking: Thinking) -> None:
        """Say that a model's thinking is not scored."""
        self.progress.note(
            f"{task.name} on {backbone.name}: what is written up to {thinking.end} is not scored, but it counts among "
            f"the {task.max_new_tokens:,} new tokens; --think-end-token off scores all"
        )

    def int8(self, backbone: Backbone) -> None:
        """Say how much of a model that was asked for in int8 is not quantised."""
        if backbone.dtype == INT8 and (share := plain_share(backbone.layers)):
            self.progress.note(
                f"{backbone.name} in int8: {share:.0%} of the weights of its layers stay in {backbone.precision}; they "
                "are experts and routers, and torchao quantises linear maps only"
            )

    def fit_overlap(self, task: Task) -> None:
        """Say how many documents methods are not fitted on because they are also scored."""
        if task.fit_overlap:
            self.progress.note(
                f"{task.name}: {task.fit_overlap:,} documents that methods would be fitted on are scored too, and "
                f"left out; fitted on: {task.fit_split}"
            )

    def generation_config(self, engine: Engine) -> None:
        """Say what the model's generation_config asks for.

        Raises:
            DlbenchError: it asks for something that is not supported.
        """
        engine.check_generation_config()
        line = engine.wishes.told(engine.backbone.name)
        if line and line not in self._generation_configs:
            self.progress.note(line)
        self._generation_configs.add(line)

    def complaints(self, task: Task, documents: Sequence[Document]) -> tuple[str, ...]:
        """Say and return what is wrong with a task's metric."""
        if task.name not in self._complaints:
            self._complaints[task.name] = complaints(task, documents)
            for line in self._complaints[task.name]:
                self.progress.note(f"{task.name}: {line}")
        return self._complaints[task.name]

    def cut_prompts(self, task: Task, backbone: Backbone, prompted: Sequence[Prompted], *, official: bool) -> None:
        """Say how many prompts are cut.

        Raises:
            DlbenchError: some do not fit the context, and the run is an official one.
        """
        over, cut = sum(p.overflowed for p in prompted), sum(p.truncated for p in prompted)
        where, count = f"{task.name} on {backbone.name}", len(prompted)
        lost = "the end of their text" if any(p.document.body for p in prompted) else "their beginning"
        if over and official:
            raise DlbenchError(
                f"{where}: {over} of {count} prompts do not fit the context of {backbone.context} tokens, and an "
                "official run cuts none: take a model with a longer context, or another task"
            )
        if over:
            self.progress.note(
                f"{where}: {over} of {count} prompts do not fit the context of {backbone.context} tokens; "
                f"they lose {lost}"
            )
        if cut > over:
            self.progress.note(f"{where}: {cut - over} of {count} prompts lose {lost} to the limit that the task sets")

    def rereading(self, task: Task, engine: Engine, prompted: Sequence[Prompted]) -> None:
        """Say how many texts may have to be read again while they are generated."""
        count = 0 if task.is_loglikelihood else engine.may_be_reread([p.request for p in prompted])
        if count:
            self.progress.note(
                f"{task.name} on {engine.backbone.name}: {count} of {len(prompted)} texts may outgrow the original "
                f"context of {engine.reread_after} tokens; those that do are read again there, as by generate, and pay "
                "for it"
            )
