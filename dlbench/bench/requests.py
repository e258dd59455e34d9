"""From text to text: nano's own tasks through lm-eval's `hf` model and through our engine."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dlbench.bench.clock import Stopwatch, Times, race
from dlbench.bench.workbench import Workbench
from dlbench.data.loader import expand_tasks, load_task
from dlbench.data.task import Document, cut
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
"""(task's place, document's id) -> text."""


@dataclass
class LmEval:
    """lm-eval's model around the very weights that the engine uses: milliseconds per document."""

    backbone: Backbone
    tasks: Sequence[Sequence[Document]]
    batch: int
    watch: Stopwatch
    texts: Texts = field(default_factory=dict)
    """What the latest run wrote."""

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
    """The same documents through the engine, metered, as a quality run does it: milliseconds per document."""

    engine: Engine
    tasks: Sequence[Sequence[Document]]
    batch: int
    watch: Stopwatch
    methods: Sequence[Method | None] = (None,)
    """All of them decode from one prefill."""
    texts: Texts = field(default_factory=dict)
    """What the first method wrote in the latest run."""
    near_ties: set[tuple[int, str]] = field(default_factory=set)
    """Documents in which the first method met a near-tie."""
    tokens: int = 0
    """New tokens of the first method in the latest run."""

    def __call__(self) -> float:
        self.tokens, self.near_ties = 0, set()
        seconds, self.texts = self.watch.of(lambda: self._run(self.tasks))
        return 1e3 * seconds / len(self.texts)

    def warm_up(self) -> None:
        """Run a few documents of each task."""
        self._run([documents[:_WARM] for documents in self.tasks])

    def _run(self, tasks: Sequence[Sequence[Document]]) -> Texts:
        found: Texts = {}
        for place, documents in enumerate(tasks):
            for group in waves(tokenise(self.engine, documents), most_rows(self.batch, len(documents), 1)):
                wave = self.engine.prefill([p.request for p in group], slots=self.batch)
                for number, method in enumerate(self.methods):
                    for prompted, generation in zip(group, wave.decode(method), strict=True):
                        text = cut(self.engine.backbone.text(generation.tokens), prompted.document.stop)
                        if number == 0:
                            key = (place, prompted.document.id)
                            found[key] = text
                            self.tokens += len(generation.tokens)
                            if generation.near_ties:
                                self.near_ties.add(key)
        return found


def race_of(bench: Workbench, pair: Mapping[str, LmEval | Ours], rounds: int) -> Times:
    """Time both sides. They warm up with a few documents; where steps are captured, with all: captures know shapes."""
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
    """Say how many texts are equal, and how many of the others met a near-tie."""
    differ = [key for key in ours if ours[key] != theirs[key]]
    text = f"{len(ours) - len(differ)} of {len(ours)} texts equal lm-eval's"
    if differ:
        tied = sum(key in near_ties for key in differ)
        text += f", {tied} differ after a near-tie, {len(differ) - tied} for no such reason"
    return text


def _settings(document: Document) -> dict[str, Any]:
    """What lm-eval is told about one document."""
    return {"until": list(document.stop), "max_gen_toks": document.limit, "do_sample": False}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep lm-eval's remark about models that are handed over loaded off the terminal."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
