"""End to end, from text to text: nano's tasks through lm-eval's `hf` model and through our engine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlbench.bench.clock import Stopwatch, Times, race
from dlbench.bench.workbench import Workbench
from dlbench.data.document import Document, cut
from dlbench.data.loader import load_task
from dlbench.data.resolve import expand_tasks
from dlbench.engine import Engine
from dlbench.method import Method
from dlbench.models.backbone import Backbone
from dlbench.models.batch_size import most_rows
from dlbench.models.loading import load
from dlbench.prompting.batching import waves
from dlbench.prompting.tokenize import tokenise

LM_EVAL, OURS = "lm-eval hf", "dlbench"
_WARM = 4
Texts = dict[tuple[int, str], str]
"""(Index of the task, id of the document) → text."""


@dataclass
class LmEval:
    """lm-eval's model with the same weights as the engine: milliseconds per document."""

    backbone: Backbone
    tasks: Sequence[Sequence[Document]]
    batch: int
    watch: Stopwatch
    texts: Texts = field(default_factory=dict)
    """Texts generated in the latest run."""

    def __post_init__(self) -> None:
        from lm_eval.models.huggingface import HFLM

        with _quiet():
            self._lm = HFLM(pretrained=self.backbone.model, tokenizer=self.backbone.tokenizer, batch_size=self.batch)

    def __call__(self) -> float:
        keys = [(place, document) for place, documents in enumerate(self.tasks) for document in documents]
        seconds, texts = self.watch.of(lambda: self._run([document for _, document in keys]))
        self.texts = {(place, d.id): text for (place, d), text in zip(keys, texts, strict=True)}
        return 1e3 * seconds / len(keys)

    def warm_up(self) -> None:
        """Run a few documents of each task."""
        self._run([document for documents in self.tasks for document in documents[:_WARM]])

    def _run(self, documents: Sequence[Document]) -> list[str]:
        from lm_eval.api.instance import Instance

        requests = [Instance("generate_until", {}, (d.prompt, _settings(d)), 0) for d in documents]
        with _quiet():
            texts: list[str] = self._lm.generate_until(requests, disable_tqdm=True)
        return texts


@dataclass
class Ours:
    """The same documents through the engine, counting FLOPs as a quality run does: milliseconds per document."""

    engine: Engine
    tasks: Sequence[Sequence[Document]]
    batch: int
    watch: Stopwatch
    methods: Sequence[Method | None] = (None,)
    """Decoded from one shared prefill."""
    texts: Texts = field(default_factory=dict)
    """Texts that the first method generated in the latest run."""
    near_ties: set[tuple[int, str]] = field(default_factory=set)
    """Documents in which the first method had a near-tie."""
    tokens: int = 0
    """Number of new tokens of the first method in the latest run."""

    def __call__(self) -> float:
        self.tokens, self.near_ties = 0, set()
        seconds, self.texts = self.watch.of(lambda: self._run(self.tasks))
        return 1e3 * seconds / len(self.texts)

    def warm_up(self) -> None:
        """Run a few documents of each task."""
        self._run([documents[:_WARM] for documents in self.tasks])

    def _run(self, tasks: Sequence[Sequence[Document]]) -> Texts:
        texts: Texts = {}
        for place, documents in enumerate(tasks):
            for group in waves(tokenise(self.engine, documents), most_rows(self.batch, len(documents), 1)):
                wave = self.engine.prefill([p.request for p in group], slots=self.batch)
                for number, method in enumerate(self.methods):
                    for prompted, generation in zip(group, wave.decode(method), strict=True):
                        text = cut(self.engine.backbone.text(generation.tokens), prompted.document.stop)
                        if number == 0:
                            key = (place, prompted.document.id)
                            texts[key] = text
                            self.tokens += len(generation.tokens)
                            if generation.near_ties:
                                self.near_ties.add(key)
        return texts


def race_of(bench: Workbench, pair: Mapping[str, LmEval | Ours], rounds: int) -> Times:
    """Time both sides; they warm up with a few documents or, where graphs are captured per shape, with all."""
    captures = max(side.engine.warm_ups for side in pair.values() if isinstance(side, Ours))
    warm = {} if captures else {name: side.warm_up for name, side in pair.items()}
    return race(pair, rounds, warm=warm, warm_ups=max(1, captures), patience=bench.sizes.patience)


def requests(bench: Workbench) -> None:
    """Time the same requests on both sides, at each batch size."""
    sizes = bench.sizes
    backbone = load("nano", device=bench.device, dtype=bench.dtype)
    tasks = [load_task(name).documents("test", sizes.documents) for name in expand_tasks(["nano"])]
    count = sum(map(len, tasks))
    engine = bench.engine(backbone, metered=True)
    for batch in sizes.request_batches:
        group = f"nano, {count} requests, batch {batch}"
        bench.say(f"requests: {group}")
        theirs = LmEval(backbone, tasks, batch, bench.watch)
        ours = Ours(engine, tasks, batch, bench.watch)
        times = race_of(bench, {LM_EVAL: theirs, OURS: ours}, sizes.request_rounds)
        bench.keep_times("requests", group, "ms/request", times)
        name = "end_to_end_vs_lm_eval" if batch == sizes.request_batches[0] else f"end_to_end_vs_lm_eval_b{batch}"
        bench.ratio(name, times.quotients(LM_EVAL, OURS), f"{ours.tokens / count:.1f} new tokens per request")
        bench.notes.append(f"{group}: {compare(ours.texts, theirs.texts, ours.near_ties)}")


def compare(ours: Mapping[Any, str], theirs: Mapping[Any, str], near_ties: set[Any]) -> str:
    """Say how many texts are equal, and how many of the others had a near-tie."""
    differ = [key for key in ours if ours[key] != theirs[key]]
    text = f"{len(ours) - len(differ)} of {len(ours)} texts equal lm-eval's"
    if differ:
        tied = sum(key in near_ties for key in differ)
        text += f", {tied} differ after a near-tie, {len(differ) - tied} for no such reason"
    return text


def _settings(document: Document) -> dict[str, Any]:
    """Generation settings of one document for lm-eval."""
    return {"until": list(document.stop), "max_gen_toks": document.limit, "do_sample": False}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress lm-eval's warning about models that are passed to it already loaded."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
