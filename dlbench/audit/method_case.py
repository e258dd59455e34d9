"""What a contract is checked on: one method with its parameters, on a model with documents, fitted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Unpack

from dlbench.audit import tiny
from dlbench.audit.method_calls import closed_form, learn_parameters
from dlbench.data.document import Document
from dlbench.data.loader import load_task
from dlbench.data.task import Task
from dlbench.data.task_options import Sources
from dlbench.engine import Engine, Generation, Request
from dlbench.errors import DlbenchError
from dlbench.fit import FitProbe, Readings, References, halves, tune
from dlbench.method import Method, Oracle
from dlbench.method.base import TrainOptions
from dlbench.models.backbone import Backbone
from dlbench.models.loading import load
from dlbench.registry import methods as registry
from dlbench.registry import plugin_code

BUDGET = 0.6
"""Layer share that a method is tuned to before it decodes."""
_STEPS = 4
"""Most optimiser steps of a fit: a contract needs a fitted method, not a good one."""
_DOCUMENTS, _TOKENS = 4, 12
"""Documents of each part, and their new tokens, on a model and task of one's own."""
Decoded = tuple[Any, ...]


class ShortProbe(FitProbe):
    """A fit split whose training ends after a few steps."""

    def train(self, router: Method, **options: Unpack[TrainOptions]) -> list[float]:
        """See `dlbench.method.Probe`."""
        options["steps"] = min(options["steps"], _STEPS)
        return super().train(router, **options)


def _short(documents: Sequence[Document]) -> list[Document]:
    return [replace(document, limit=min(document.limit, _TOKENS)) for document in documents[:_DOCUMENTS]]


@dataclass
class Bench:
    """A model with documents to learn from, to tune on, and to decode."""

    backbone: Backbone
    task: Task
    learn: Sequence[Document]
    tune: Sequence[Document]
    readings: Readings = field(default_factory=Readings)

    @classmethod
    def tiny(cls, family: str = "llama") -> Bench:
        """A tiny random model of a family."""
        documents = tiny.documents(family, 12)
        return cls(tiny.backbone(family), tiny.task(), documents[:6], documents[6:])

    @classmethod
    def of(cls, model: str, task: str, data_dir: str | None = None) -> Bench:
        """A few documents of the fit split of a task, on a model in float64.

        Raises:
            DlbenchError: the model or the task cannot be loaded, or there are too few documents.
        """
        loaded = load_task(task, Sources(data_dir))
        backbone = load(model, device="cpu", dtype="float32", data_dir=data_dir)
        backbone.model.double()  # so that a batch decides as its rows alone do
        learn, rest = halves(loaded.documents("fit"))
        if len(learn) < _DOCUMENTS or len(rest) < _DOCUMENTS:
            raise DlbenchError(f"task {task!r} has too few documents to fit on; take another --task")
        return cls(replace(backbone, dtype="float64"), loaded, _short(learn), _short(rest))

    @cached_property
    def engine(self) -> Engine:
        """Decodes with the model's own layers."""
        return Engine(self.backbone, kernels="stock")

    @cached_property
    def requests(self) -> list[Request]:
        """Prompts to decode."""
        references = References(self.backbone, self.learn, self.tune, readings=self.readings)
        return [request for _, request in references.requests("tune")]


@dataclass
class MethodCase:
    """One method with its parameters on one bench."""

    given: str
    """Name, or path of a plugin file."""
    params: Mapping[str, Any]
    bench: Bench

    @property
    def label(self) -> str:
        """The method's name and parameters."""
        values = ",".join(f"{name}={value}" for name, value in self.params.items())
        return registry.name_of(self.given) + (f" {values}" if values else "")

    @cached_property
    def kind(self) -> registry.MethodClass:
        """The class, imported."""
        return registry.load(self.given)

    @property
    def depth(self) -> int:
        """Layers of the model."""
        return self.bench.backbone.depth

    def fresh(self) -> Method:
        """The method with its parameters, before any fit.

        Raises:
            MethodError: it refuses its parameters.
        """
        with plugin_code.blaming(self.kind, "with its own parameters"):
            made = self.kind.from_params(self.params)
            made.validate(self.depth)
        assert isinstance(made, Method)
        return made

    def oracle(self) -> Oracle:
        """The oracle with its parameters."""
        made = self.kind.from_params(self.params)
        assert isinstance(made, Oracle)
        return made

    @cached_property
    def probe(self) -> FitProbe:
        """The fit split."""
        bench = self.bench
        return ShortProbe(bench.backbone, bench.task, bench.learn, bench.tune, 0, BUDGET, readings=bench.readings)

    @cached_property
    def fitted(self) -> Method:
        """The method after a short fit, at a layer share near `BUDGET` where it can be set to one."""
        method = self.fresh()
        with plugin_code.blaming(method, "while it was fitted"):
            if method.learns:
                learn_parameters(method, self.probe)
            closed = closed_form(method, BUDGET, self.depth)
            if closed is not None:
                closed.validate(self.depth)
                return closed
            if method.knob is not None and method.tuned:
                tune(self.probe, method, BUDGET)
        return method

    @cached_property
    def together(self) -> Decoded:
        """What the fitted method decodes, all prompts together."""
        return self.decode(self.fitted)

    def decode(
        self, method: Method, slots: int | None = None, kv: str | None = None, *, alone: bool = False
    ) -> Decoded:
        """What the method writes, runs and spends on every prompt.

        Args:
            method: decodes.
            slots: rows decoded together; None for all.
            kv: KV policy; None for the method's own.
            alone: whether each prompt is a wave of its own.
        """
        requests = self.bench.requests
        waves = [[request] for request in requests] if alone else [requests]
        found: list[Generation] = []
        with plugin_code.blaming(method, "while it decoded"):
            for wave in waves:
                read = self.bench.engine.prefill(wave, slots=slots, reads=method.reads(self.depth))
                found += read.decode(method, seed=3, kv=kv)
        return tuple((g.tokens, g.layers, g.routes, g.flops, g.speculation) for g in found)
