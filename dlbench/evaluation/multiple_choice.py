"""Samples of multiple-choice tasks: which answer is the most likely, and what computing all likelihoods cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dlbench.data.task import Document, Task
from dlbench.engine import Engine
from dlbench.engine.flops.costs import CATEGORIES
from dlbench.engine.loglikelihood import weigh
from dlbench.engine.requests import Question, Verdict
from dlbench.errors import DlbenchError
from dlbench.method import Method
from dlbench.models.backbone import Backbone
from dlbench.records.schema import Flops, Sample, Tokens


@dataclass(frozen=True)
class Encoded:
    """The answers of a document as token ids."""

    question: Question
    truncated: bool
    """Whether a context lost its beginning."""

    @property
    def longest(self) -> tuple[int, ...]:
        """Tokens of the longest answer with its context, but for the last: what has to fit the memory."""
        return max(((*context, *answer)[:-1] for context, answer in self.question.answers), key=len)


def encode(backbone: Backbone, document: Document) -> Encoded:
    """Token ids of contexts and continuations, parted as lm-eval parts them.

    White space at the end of a context goes to the continuation, and an empty context becomes the token that begins a
    text. A context that does not fit the model's loses its beginning.

    Raises:
        DlbenchError: a continuation has no token, or does not fit the model's context, or the model has no embedding
            for a token.
    """
    pairs, truncated = [], False
    for context, continuation in document.pairs:
        stripped, text = context.rstrip(), context + continuation
        before = backbone.encode(stripped) if stripped else backbone.start
        answer = backbone.encode(text)[len(before) :] if stripped else backbone.plain(text)
        limit = backbone.context
        if not answer or len(answer) > limit:
            what = "is empty" if not answer else f"does not fit a context of {limit} tokens"
            raise DlbenchError(f"{document.named}: the answer {continuation!r} {what}")
        # The last token of an answer is read off and never runs.
        if len(before) + len(answer) - 1 > limit:
            before, truncated = backbone.shorten(before, limit - len(answer) + 1), True
        backbone.check_ids([*before, *answer], f"{document.named}: an answer with its context")
        pairs.append((tuple(before), tuple(answer)))
    return Encoded(Question(document.id, tuple(pairs)), truncated)


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
