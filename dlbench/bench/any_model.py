"""A model of the user's own: decoding beside generate, tasks beside lm-eval, and how long that will take."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from dlbench.bench.clock import race
from dlbench.bench.decode import FULL, GENERATE, UNIT, Generate, halves, note_tokens, path_of, step_ms
from dlbench.bench.models import random_requests
from dlbench.bench.options import Subject
from dlbench.bench.requests import LM_EVAL, OURS, LmEval, Ours, compare, race_of
from dlbench.bench.workbench import Workbench
from dlbench.data.document import Document
from dlbench.data.loader import load_task
from dlbench.models.backbone import Backbone
from dlbench.models.loading import load
from dlbench.prompting.tokenize import encode_prompt

BATCHES = (1, 16)
BATCH = 16
"""Batch size of the tasks."""
_PROBED = 5
"""New tokens of the probes."""
OURS_TAKES = 0.6
"""Our time ÷ that of the other side, for the forecast."""


class ModelBench:
    """The parts of the benchmark for one model, which is loaded once."""

    def __init__(self, bench: Workbench, subject: Subject) -> None:
        self.bench, self.subject = bench, subject
        bench.say(f"load {subject.model}")
        self.backbone = load(subject.model, device=bench.device, dtype=bench.dtype, data_dir=subject.sources.data_dir)
        loaded = [load_task(name, subject.sources) for name in subject.tasks]
        self.tasks = [task.documents("test", bench.sizes.model_documents) for task in loaded]
        self.vocabulary = self.backbone.vocabulary
        self.prompts = [len(encode_prompt(self.backbone, d).request.ids) for d in self.documents]

    @property
    def documents(self) -> list[Document]:
        """The documents of all tasks."""
        return [document for documents in self.tasks for document in documents]

    def decode(self) -> None:
        """Time the decode steps of full depth beside generate's."""
        bench, sizes = self.bench, self.bench.sizes
        with endless(self.backbone) as backbone:
            engine = bench.engine(backbone)
            for batch in BATCHES:
                requests = random_requests(batch, sizes.prompt, sizes.model_tokens, self.vocabulary)
                generate, wave = Generate(backbone, requests, bench.watch), engine.prefill(requests)
                contenders: dict[str, Callable[[], float]] = {
                    GENERATE: generate,
                    FULL: partial(step_ms, wave, None, bench.watch),
                    **{name: partial(step_ms, wave, method, bench.watch) for name, method in halves().items()},
                }
                group = f"{self.backbone.name}, batch {batch}"
                bench.say(f"decode: {group}")
                warm_ups = max(1, engine.warm_ups)
                times = race(contenders, sizes.model_rounds, warm_ups=warm_ups, patience=sizes.patience)
                bench.keep_times("decode", group, UNIT, times)
                note_tokens(bench, self.backbone.name, generate, {FULL: wave})
                bench.ratio(f"model_decode_vs_generate_b{batch}", times.quotients(GENERATE, FULL), path_of(engine))
                for name in halves():
                    bench.ratio(f"model_{name.split()[0]}50_b{batch}", times.quotients(FULL, name))

    def requests(self) -> None:
        """Time tasks from text to text beside lm-eval."""
        bench, count = self.bench, len(self.prompts)
        group = f"{self.backbone.name}, {count} requests, batch {BATCH}"
        bench.say(f"requests: {group}")
        theirs = LmEval(self.backbone, self.tasks, BATCH, bench.watch)
        ours = Ours(bench.engine(self.backbone, metered=True), self.tasks, BATCH, bench.watch)
        times = race_of(bench, {LM_EVAL: theirs, OURS: ours}, bench.sizes.model_rounds)
        bench.keep_times("requests", group, "ms/request", times)
        how = f"{sum(self.prompts) / count:.0f} prompt tokens and {ours.tokens / count:.1f} new ones per request"
        bench.ratio("model_end_to_end_vs_lm_eval", times.quotients(LM_EVAL, OURS), how)
        bench.notes.append(f"{group}: {compare(ours.texts, theirs.texts, ours.near_ties)}")

    def forecast(self, parts: Sequence[str]) -> float:
        """Return the seconds that these parts will take at most, from a few timed steps of generate."""
        bench, sizes = self.bench, self.bench.sizes
        with endless(self.backbone) as backbone:
            requests = [random_requests(b, sizes.prompt, _PROBED, self.vocabulary) for b in BATCHES]
            probes = [Generate(backbone, several, bench.watch) for several in requests]
            timed = [bench.watch.of(probe) for probe in probes]
        one, many = (ms / 1e3 for _, ms in timed)  # seconds per step
        per_token = max(0.0, timed[1][0] - _PROBED * many) / (BATCHES[1] * sizes.prompt)
        rounds, sides = sizes.model_rounds + 1, 1 + OURS_TAKES  # and a warm-up
        skips = len(halves()) * OURS_TAKES
        seconds = 0.0
        if "decode" in parts:
            seconds += rounds * (sides + skips) * sizes.model_tokens * (one + many)
            seconds += rounds * sum(BATCHES) * sizes.prompt * per_token
        if "requests" in parts:
            steps = sum(max(d.limit for d in documents) * -(-len(documents) // BATCH) for documents in self.tasks)
            seconds += rounds * sides * (sum(self.prompts) * per_token + steps * many)
        return seconds


@contextlib.contextmanager
def endless(backbone: Backbone) -> Iterator[Backbone]:
    """Give the model without end tokens while entered, so that both sides write as many tokens as they are asked for.

    Args:
        backbone: its generation_config is changed meanwhile.
    """
    settings = backbone.model.generation_config
    ends, settings.eos_token_id = settings.eos_token_id, None
    try:
        yield replace(backbone, tokenizer=None)  # its end-of-text token ends a text, too
    finally:
        settings.eos_token_id = ends
