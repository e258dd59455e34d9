"""Samples of multiple-choice tasks: which answer is the most likely, and what computing all likelihoods cost."""

from __future__ import annotations

from collections.abc import Sequence

from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.engine import Engine
from dlbench.engine.flops.costs import CATEGORIES
from dlbench.engine.loglikelihood import weigh
from dlbench.engine.requests import Verdict
from dlbench.method import Method
from dlbench.prompting.tokenize import Encoded
from dlbench.records.schema import Flops, Sample, Tokens


def samples(
    engine: Engine,
    task: Task,
    items: Sequence[tuple[Document, Encoded]],
    method: Method | None,
    seed: int,
    slots: int,
) -> list[Sample]:
    """Return a sample per document, from the log-likelihoods of its answers.

    Args:
        engine: runs them.
        task: scores them.
        items: the documents with their answers as token ids.
        method: static or per sequence; None runs every layer.
        seed: seed of the method's noise.
        slots: most rows run together.
    """
    verdicts = weigh(engine, [encoded.question for _, encoded in items], method, seed, slots=slots)
    return [_sample(task, *item, verdict) for item, verdict in zip(items, verdicts, strict=True)]


def _sample(task: Task, document: Document, encoded: Encoded, verdict: Verdict) -> Sample:
    scores = task.weigh(document, verdict.answers)
    score = scores.pop(task.metric)
    # Answers without a context serve metrics that correct for how likely an answer is by itself.
    choices = [i for i, (context, _) in enumerate(document.pairs) if context] or range(len(document.pairs))
    preferred = max(choices, key=lambda i: verdict.answers[i][0])
    return Sample(
        id=document.id,
        output=document.pairs[preferred][1].strip(),
        score=score,
        scores=scores,
        answers=tuple(verdict.answers),
        layers=tuple(verdict.layers),
        routes=tuple(("".join(map(str, route)), times) for route, times in verdict.routes),
        truncated=encoded.truncated,
        tokens=Tokens(prompt=verdict.tokens, generated=0),
        flops=Flops(**{c: verdict.flops[c] for c in CATEGORIES}),
        prompt_flops=0,
        executed_flops=verdict.executed,
    )
