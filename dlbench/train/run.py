"""Carry out a training: measure, train, export, measure again, write the card.

Also the entry point of worker processes: `python -m dlbench.train.run SPEC.json`, started by
`dlbench.system.processes`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import InitProcessGroupKwargs

from dlbench import __version__
from dlbench.data.document import Document
from dlbench.data.loader import load_task
from dlbench.data.task import Task
from dlbench.engine import Engine
from dlbench.errors import DlbenchError
from dlbench.models.backbone import Backbone
from dlbench.models.catalog import resolve_device
from dlbench.models.loading import load, stored_config
from dlbench.system import device_memory, lifeline, process_group, stopping
from dlbench.system.cpu import cores
from dlbench.system.files import naming, write_text
from dlbench.system.folder_lock import FolderLock
from dlbench.system.processes import WAIT, ended_by, launch, own_threads
from dlbench.terminal.console import open_console
from dlbench.terminal.progress import Progress
from dlbench.train import data, loop, lora, sets
from dlbench.train.card import CARD_FILE, Card, read_card, rich_table, write_card
from dlbench.train.export import MeasuredQuality, Trained, stored_dtype
from dlbench.train.measure import measure
from dlbench.train.objective import Objective, learning
from dlbench.train.spec import TRAIN_FILE, TrainSpec

WORK = "training"
"""Folder in the output folder for what only an unfinished training needs."""
LOG_FILE = "train_log.jsonl"


def execute(*specs: TrainSpec) -> None:
    """Carry out trainings one after the other, or resume them.

    Raises:
        DlbenchError: something cannot be done as asked.
    """
    if len(specs) > 1:
        for spec in specs:  # a slip in the last is told before the first has taken its time
            config = stored_config(spec.model, spec.sources.data_dir).get_text_config()
            spec.build_recipe().validate(config.num_hidden_layers)
    try:
        for number, spec in enumerate(specs, 1):
            if len(specs) > 1 and process_group.rank() == 0:
                name = spec.out.name
                open_console().print(f"training {number} of {len(specs)}: {name}", markup=False, highlight=False)
            if spec.processes > 1 and not process_group.launched():
                launch("dlbench.train.run", spec, spec.processes, "training")
            else:
                Training(spec).run()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    if len(specs) > 1 and process_group.rank() == 0:
        _show_all(specs)


def _show_all(specs: Sequence[TrainSpec]) -> None:
    """Print what several trainings came to, side by side."""
    console, cards = open_console(), [read_card(spec.out) for spec in specs]
    if cards[0].quality:
        console.print(sets.table(cards))
        console.print(cards[0].caption(), style="dim", markup=False, highlight=False)
    console.print(sets.run_command(specs), markup=False, highlight=False)


class Training:
    """The state of one process of a training."""

    def __init__(self, spec: TrainSpec) -> None:
        device = resolve_device(spec.device)
        lifeline.end_with_launcher()
        with own_threads():
            self.accelerator = Accelerator(
                cpu=device == "cpu",
                device_placement=False,
                mixed_precision="no",  # the objective does its own casting
                kwargs_handlers=[InitProcessGroupKwargs(timeout=WAIT)],
            )
        sharded = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)
        if self.accelerator.distributed_type in sharded:
            raise DlbenchError("training shares out documents, not weights: launch without FSDP, DeepSpeed or Megatron")
        if self.accelerator.num_processes > 1:
            torch.set_num_threads(max(1, cores() // self.accelerator.num_processes))
            device = str(self.accelerator.device)
        self.spec, self.device, self.main = spec, torch.device(device), self.accelerator.is_main_process
        self.recipe = spec.build_recipe()
        self.work = spec.out / WORK
        self.lock = FolderLock(spec.out)
        self.progress = Progress(shown=self.main)

    def run(self) -> None:
        """Carry out the training, or what is left of it.

        Raises:
            DlbenchError: something cannot be done as asked, or another command writes to the output folder.
        """
        try:
            self._run()
        finally:
            self.lock.free()

    def _run(self) -> None:
        marker = self._marker()
        if marker and (self.spec.out / CARD_FILE).is_file() and not self.work.exists():
            self._show(read_card(self.spec.out), "trained already: ")
            return
        backbone = load(
            self.spec.model, device=str(self.device), dtype=self._dtype(), data_dir=self.spec.sources.data_dir
        )
        self._check(backbone)
        loaded = [load_task(name, self.spec.sources) for name in self.spec.tasks]
        tasks = {task: self._measured_on(task) for task in loaded}
        with self.progress:
            with self.progress.stage("texts to learn from", "make") as say:
                spec = self.spec
                corpus = data.gather(backbone, list(tasks), spec.documents, spec.epochs, spec.seed, say)
            self._claim()
            before = self._begin(self._marker(), backbone, tasks, corpus)
            adapters = self._adapters(backbone)
            trainer = self._train(backbone, corpus)
            if self.main:
                self._finish(Trained(backbone, tasks, corpus, before, trainer, adapters))
            self.accelerator.wait_for_everyone()
        if self.main:
            self._show(read_card(self.spec.out))

    def _claim(self) -> None:
        """Take the lock of the output folder: another training may have begun there since it was checked."""
        if self.main:
            with naming(self.spec.out):
                self.spec.out.mkdir(parents=True, exist_ok=True)
                self.lock.take()

    def _marker(self) -> dict[str, Any] | None:
        """Read what the output folder holds of an earlier start.

        Raises:
            DlbenchError: it belongs to another training.
        """
        path = self.spec.out / TRAIN_FILE
        self.accelerator.wait_for_everyone()
        text = path.read_text() if path.is_file() else None
        self.accelerator.wait_for_everyone()  # all have read before one writes
        if text is None:
            return None
        try:
            marker: dict[str, Any] = json.loads(text)
            then = marker["spec"]
        except (ValueError, KeyError) as error:
            raise DlbenchError(f"{path} is damaged; delete that folder to train again") from error
        self._compare(then, self.spec.content)
        return marker

    def _compare(self, then: dict[str, Any], now: dict[str, Any]) -> None:
        if different := sorted(name for name in {*then, *now} if then.get(name) != now.get(name)):
            name = different[0]
            raise DlbenchError(
                f"--out {self.spec.out} holds another training: its {name.replace('_', ' ')} was "
                f"{json.dumps(then.get(name))}, not {json.dumps(now.get(name))}; give another folder, or delete it"
            )

    def _measured_on(self, task: Task) -> list[Document]:
        documents = data.tuned_on(task)[: self.spec.score]
        if self.spec.score and not documents:
            raise DlbenchError(f"task {task.name!r} has too few documents to measure on: --score 0 goes without")
        return documents

    def _check(self, backbone: Backbone) -> None:
        self.recipe.validate(backbone.depth)
        if getattr(backbone.model.config, "quantization_config", None) is not None:
            raise DlbenchError(f"model {backbone.name!r} is quantised, so it cannot be trained: give the plain model")

    def _begin(
        self, marker: dict[str, Any] | None, backbone: Backbone, tasks: dict[Task, list[Document]], corpus: data.Corpus
    ) -> MeasuredQuality:
        """Mark the output folder, with the quality before the training; return that quality."""
        facts = {"parent": backbone.sha256, **{s.task: s.sha256 for s in corpus.sources}}
        if marker is not None:
            self._compare(marker["facts"], facts)
            return dict(marker["before"])
        before: MeasuredQuality = {}
        if self.main:
            before = self._measure(backbone, tasks)
            content = {"dlbench": __version__, "spec": self.spec.content, "facts": facts, "before": before}
            self.work.mkdir(parents=True, exist_ok=True)
            write_text(self.spec.out / TRAIN_FILE, json.dumps(content, indent=1) + "\n")
        self.accelerator.wait_for_everyone()
        return before

    def _measure(self, backbone: Backbone, tasks: Mapping[Task, Sequence[Document]]) -> MeasuredQuality:
        if not self.spec.score:
            return {}
        sets = self.recipe.measured(backbone.depth)
        with self.progress.bar("measure", len(sets) * sum(map(len, tasks.values()))) as done:
            return measure(Engine(backbone), tasks, sets, routed=self.recipe.routes_prompt, done=done)

    def _dtype(self) -> str:
        """Dtype of the weights while they are trained: float32; of a base that is frozen bfloat16, if it is stored so.

        Products with it must be in bfloat16 as well.
        """
        frozen = self.spec.lora is not None and self._autocast() is torch.bfloat16
        own = stored_dtype(self.spec.model, self.spec.sources.data_dir) if frozen else None
        return "bfloat16" if own is torch.bfloat16 else "float32"

    def _adapters(self, backbone: Backbone) -> lora.Adapters | None:
        if self.spec.lora is None:
            return None
        return lora.attach(backbone, self.spec.lora, learning(self.recipe, backbone.depth), self.spec.seed)

    def _train(self, backbone: Backbone, corpus: data.Corpus) -> loop.Trainer:
        adapted, recompute = self.spec.lora is not None, self.spec.gradient_checkpointing
        objective = Objective(backbone, self.recipe, self._autocast(), adapted=adapted, recompute=recompute)
        trainer = loop.Trainer(
            objective=objective,
            steps=data.steps(corpus, self.spec.batch_tokens, self.spec.seed),
            spec=self.spec,
            lr=self.spec.lr or loop.rate(backbone.model.num_parameters(), adapted),
            accelerator=self.accelerator,
            device=self.device,
            folder=self.work,
            log=self.spec.out / LOG_FILE,
        )
        try:
            with self.progress.bar("train", len(trainer.steps)) as done:
                trainer.run(done)
        except Exception as error:
            if not device_memory.ran_out(error):
                raise
            raise DlbenchError(
                f"training {backbone.name!r} does not fit the memory of {self.device}: give fewer --micro-tokens than "
                f"{self.spec.micro_tokens}{self._savers()}, or a smaller model"
            ) from error
        return trainer

    def _savers(self) -> str:
        """What else would need less memory, for the message."""
        savers = {"--gradient-checkpointing": self.spec.gradient_checkpointing, "--lora 16": self.spec.lora is not None}
        return "".join(f", {option}" for option, given in savers.items() if not given)

    def _autocast(self) -> torch.dtype | None:
        """Dtype of matrix products: by default bfloat16 where the device has instructions for it; None for float32."""
        if self.device.type == "cuda":
            quick = torch.cuda.is_bf16_supported()
        else:
            quick = self.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        wanted = {"auto": quick, "bfloat16": True, "float32": False}[self.spec.dtype]
        return torch.bfloat16 if wanted else None

    def _finish(self, trained: Trained) -> None:
        """Export the model, measure it again, write the card, and move all of it to the output folder, the card first.

        The training counts as finished when its working folder is gone, which happens at once.
        """
        name = self.spec.out.absolute().name
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        trained.save(self.spec.model, folder, self.spec.sources.data_dir)
        exported = load(str(folder), device=str(self.device), dtype=self._dtype())
        card = trained.card(exported, self._measure(exported, trained.tasks), self.spec)
        write_card(card, folder, name)
        for path in sorted(folder.iterdir(), key=lambda p: p.name != CARD_FILE):
            target = self.spec.out / path.name
            if path.is_dir():  # left by a finish that was interrupted
                shutil.rmtree(target, ignore_errors=True)
            os.replace(path, target)
        finished = self.work.with_name(f".{WORK}-finished")
        shutil.rmtree(finished, ignore_errors=True)
        os.replace(self.work, finished)
        shutil.rmtree(finished)

    def _show(self, card: Card, remark: str = "") -> None:
        if not self.main:
            return
        console = open_console()
        if card.quality:
            console.print(rich_table(card))
            console.print(card.caption(), style="dim", markup=False, highlight=False)
        console.print(card.recipe_line(), markup=False, highlight=False)
        console.print(f"{remark}dlbench run --model {self.spec.out} …", markup=False, highlight=False)


def _worker(path: Path) -> int:
    """Entry point of a worker process."""
    with stopping.by_signals():
        try:
            execute(TrainSpec.read(path))
        except BaseException as error:
            return ended_by(path, error)
    return 0


if __name__ == "__main__":
    sys.exit(_worker(Path(sys.argv[1])))
