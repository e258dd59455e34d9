"""Export a trained model, and say on its card how it was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.models.backbone import Backbone
from dlbench.models.loading import stored_config
from dlbench.system.versions import versions
from dlbench.train.card import Card, Learnt, Measured
from dlbench.train.data import Corpus
from dlbench.train.loop import Trainer
from dlbench.train.lora import ADAPTER, Adapters
from dlbench.train.spec import TrainSpec

MeasuredQuality = dict[str, dict[str, float]]
"""Task → layer set → mean score."""


@dataclass(frozen=True)
class Trained:
    """A training whose last step is done."""

    backbone: Backbone
    """The model, with its trained weights."""
    tasks: Mapping[Task, Sequence[Document]]
    """The tasks, with the documents that quality is measured on."""
    corpus: Corpus
    before: MeasuredQuality
    """Quality before the training; empty where none was measured."""
    trainer: Trainer
    adapters: Adapters | None = None
    """What was trained of the model; None: its own weights."""

    def save(self, source: str, folder: Path, data_dir: str | None = None) -> None:
        """Save the model, with its adapters merged into it, and the adapters alone.

        Args:
            source: the model it was trained from, as the user gave it.
            folder: where to.
            data_dir: folder that prefetched models are looked for in, before the default one.
        """
        if self.adapters is not None:
            self.adapters.save(folder / ADAPTER, source)
            self.adapters.merge()
        save_model(self.backbone, source, folder, data_dir)

    def card(self, exported: Backbone, after: MeasuredQuality, spec: TrainSpec) -> Card:
        """Return the card.

        Args:
            exported: the model as it was saved and loaded again.
            after: its quality.
            spec: what was asked for.
        """
        backbone, totals, recipe = self.backbone, self.trainer.totals, spec.build_recipe()
        options = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
        options = {name: value for name, value in options.items() if value is not None}
        if "exits" in options:
            options["exits"] = tuple(recipe.weights(backbone.depth, 0))
        return Card(
            sha256=exported.sha256,
            base_sha256=backbone.base_sha256,
            parent=backbone.name,
            parent_sha256=backbone.sha256,
            family=backbone.kind,
            depth=backbone.depth,
            recipe=recipe.name,
            options=options,
            settings=self.trainer.settings(),
            learnt=self._learnt(),
            sources=self.corpus.sources,
            seed=spec.seed,
            steps=totals.step,
            tokens=totals.tokens,
            targets=totals.targets,
            seconds=round(totals.seconds, 1),
            processes=self.trainer.accelerator.num_processes,
            device=self.trainer.device.type,
            prompt="routed" if recipe.routes_prompt else "full",
            quality=self._quality(after, recipe.measured(backbone.depth)),
            versions=versions("accelerate", *(["peft"] if self.adapters else [])),
        )

    def _learnt(self) -> Learnt:
        """What was trained; the adapters that are merged by now count as parameters of their own."""
        trained, whole = self.trainer.learnt, sum(p.numel() for p in self.backbone.model.parameters())
        if self.adapters is None:
            return Learnt(parameters=trained, of=whole)
        return Learnt(
            parameters=trained,
            of=whole + trained,
            rank=self.adapters.rank,
            alpha=self.adapters.alpha,
            modules=self.adapters.modules,
            without=self.adapters.without,
            without_share=round(self.adapters.without_share, 4),
        )

    def _quality(self, after: MeasuredQuality, sets: Mapping[str, frozenset[int]]) -> tuple[Measured, ...]:
        """Quality before and after, of every layer set on every task."""
        if not self.before:
            return ()
        return tuple(
            Measured(
                task=task.name,
                metric=task.metric,
                documents=len(documents),
                name=name,
                layers=tuple(sorted(layers)),
                before=round(self.before[task.name][name], 6),
                after=round(after[task.name][name], 6),
            )
            for name, layers in sets.items()
            for task, documents in self.tasks.items()
        )


def save_model(backbone: Backbone, source: str, folder: Path, data_dir: str | None = None) -> None:
    """Save a model that was made from another one, in the dtype that the other's weights are stored in.

    Args:
        backbone: trained or pruned; its model is converted in place.
        source: the model it was made from, as the user gave it.
        folder: where to.
        data_dir: folder that prefetched models are looked for in, before the default one.
    """
    backbone.model.to(stored_dtype(source, data_dir)).save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)


def stored_dtype(name: str, data_dir: str | None = None) -> torch.dtype:
    """Return the dtype that a model's weights are stored in; float32 where they are quantised in a GGUF file.

    Args:
        name: as `dlbench.models.loading.load` takes it.
        data_dir: folder that prefetched models are looked for in, before the default one.
    """
    dtype = stored_config(name, data_dir).dtype
    return dtype if isinstance(dtype, torch.dtype) else torch.float32
