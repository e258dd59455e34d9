"""Quality of a backbone with several sets of layers, measured before and after a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.engine import Engine
from dlbench.method import Method
from dlbench.models import batch_size
from dlbench.prompting.batching import waves
from dlbench.prompting.tokenize import Prompted, tokenise
from dlbench.registry import methods as registry
from dlbench.system import device_memory


def measure(
    engine: Engine,
    tasks: Mapping[Task, Sequence[Document]],
    sets: Mapping[str, frozenset[int]],
    *,
    routed: bool,
    done: Callable[..., None],
) -> dict[str, dict[str, float]]:
    """Return the mean primary metric by task and set of layers.

    Args:
        engine: of the backbone.
        tasks: with the documents to decode.
        sets: executed layers, by name.
        routed: whether prompts run these layers only; otherwise they run all of them.
        done: told the number of documents × sets that are finished, as they finish.
    """
    methods = {name: _static(layers, engine.backbone.depth) for name, layers in sets.items()}
    slots = batch_size.most_slots(engine.backbone.device.type)
    means: dict[str, dict[str, float]] = {}
    for task, documents in tasks.items():
        done(0, f"{task.name} · {engine.backbone.name}")
        scores: dict[str, list[float]] = {name: [] for name in sets}
        prompted = tokenise(engine, documents)
        for batch in waves(prompted, _rows(engine, prompted, slots)):
            requests = [p.request for p in batch]
            shared = None if routed else engine.prefill(requests, slots=slots)
            for name, method in methods.items():
                wave = shared or engine.prefill(requests, method, slots=slots)
                for p, generation in zip(batch, wave.decode(method), strict=True):
                    text = engine.backbone.text(generation.tokens)
                    scores[name].append(task.score(p.document, text)[task.metric])
                done(len(batch))
        means[task.name] = {name: fmean(values) for name, values in scores.items()}
    return means


def _rows(engine: Engine, prompted: Sequence[Prompted], slots: int) -> int:
    """Number of documents decoded together: as many as fit the memory."""
    backbone = engine.backbone
    longest = max(len(p.request.ids) for p in prompted)
    new, free = prompted[0].document.limit, device_memory.free_bytes(backbone.device, 1)
    fit = batch_size.rows_that_fit(backbone, longest, new, backbone.depth, slots, free)
    return min(fit, batch_size.most_rows(slots, len(prompted), 1))


def _static(layers: frozenset[int], depth: int) -> Method | None:
    if len(layers) == depth:
        return None
    cls = registry.load("static_skip")
    assert issubclass(cls, Method)
    return cls.from_params({"only": sorted(layers)})
