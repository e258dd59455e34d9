"""From samples to records: means, shares and intervals over the documents of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dlbench.data.document import Document
from dlbench.data.rows.sources import clusters
from dlbench.evaluation.text_stats import beside
from dlbench.records.schema import Compute, Flops, Quality, Sample, Speculation, Tokens
from dlbench.stats import FEWEST_DOCUMENTS, retained

if TYPE_CHECKING:
    from dlbench.data.task import Task
    from dlbench.evaluation.settings import Conditions

SamplesById = Mapping[str, Sample]
"""Document id → sample."""


class DenseCosts(Protocol):
    """What decoding costs at full depth."""

    def dense(self, prompt: int, generated: int) -> int:
        """Decode FLOPs for `generated` tokens after a prompt of `prompt` tokens."""


@dataclass(frozen=True)
class Reference:
    """Full depth of the base backbone on the same documents: what all shares and ratios are relative to."""

    depth: int
    costs: DenseCosts
    samples: SamplesById


@dataclass(frozen=True)
class Evaluation:
    """What the records of one task on one backbone have in common."""

    conditions: Conditions
    documents: Sequence[Document]
    """All documents of the records, in order."""
    base: Reference
    env: Mapping[str, str] = field(default_factory=dict)
    """Where it ran."""


def reached(share: float, budget: float, depth: int) -> bool:
    """Return whether a realised layer share counts as the budget: within max(0.03, half a layer)."""
    return abs(share - budget) <= max(0.03, 0.5 / depth) + 1e-9


def layer_share(samples: Sequence[Sample], depth: int) -> float:
    """Return executed layer calls ÷ (depth × decode forwards), averaged over documents with any decode forward."""
    shares = [sum(s.layers) / (depth * len(s.layers)) for s in samples if s.layers]
    return float(np.mean(shares)) if shares else 1.0


def compute(samples: Sequence[Sample], base: Reference) -> Compute:
    """Return the cost of these samples as shares of the base's full depth."""
    decode, whole = [], []
    for s in samples:
        full = base.samples[s.id]
        if s.layers:
            # A log-likelihood task generates nothing, and full depth ran the same texts.
            is_loglikelihood = s.tokens.generated == 0
            dense = full.flops.total if is_loglikelihood else base.costs.dense(s.tokens.prompt, s.tokens.generated)
            decode.append(s.flops.total / dense)
        whole.append((s.prompt_flops + s.flops.total) / (full.prompt_flops + full.flops.total))
    return Compute(
        layer_share=layer_share(samples, base.depth),
        flop_share_decode=float(np.mean(decode)) if decode else 1.0,
        flop_share_total=float(np.mean(whole)),
        flops=Flops(**{c: sum(getattr(s.flops, c) for s in samples) for c in Flops.model_fields}),
        executed_flops=sum(s.executed_flops for s in samples),
        tokens=Tokens(prompt=sum(s.tokens.prompt for s in samples), generated=sum(s.tokens.generated for s in samples)),
        speculation=_speculation([s.speculation for s in samples if s.speculation is not None]),
    )


def _speculation(several: Sequence[Speculation]) -> Speculation | None:
    if not several:
        return None
    return Speculation(
        drafted=sum(s.drafted for s in several),
        accepted=sum(s.accepted for s in several),
        rounds=sum(s.rounds for s in several),
    )


def quality(
    scores: Sequence[float],
    full: Sequence[float],
    *,
    corpus: float | None = None,
    extra: Mapping[str, float] = {},
    chance: float = 0.0,
    same: bool = False,
    clusters: Sequence[str] | None = None,
) -> Quality:
    """Return the mean score, and the share of full depth's that it retains, with its interval.

    Args:
        scores: the method's, one per document.
        full: full depth's, on the same documents.
        corpus: the metric over the whole corpus, where it has such a form.
        extra: further figures, by name.
        chance: the mean score of guessing, subtracted from both.
        same: the two are one run: full depth beside itself.
        clusters: the source of each document, where documents share one.
    """
    kept = retained(scores, full, chance=chance, same=same, clusters=clusters)
    independent = len(scores if clusters is None else set(clusters))
    return Quality(
        mean=float(np.mean(scores)),
        corpus=corpus,
        full_mean=float(np.mean(full)),
        retained=None if kept is None else kept.estimate,
        retained_ci95=None if kept is None or independent < FEWEST_DOCUMENTS else (kept.low, kept.high),
        extra=dict(extra),
    )


def clustered(documents: Sequence[Document]) -> tuple[str, ...] | None:
    """Return the source of each document for the statistics; None where no two documents share one."""
    return clusters([d.id for d in documents], {d.id: d.source for d in documents})


def sample_quality(evaluation: Evaluation, samples: Sequence[Sample]) -> Quality:
    """Return the quality of samples by their own scores."""
    return quality_of(evaluation.conditions.task, evaluation.documents, samples, evaluation.base.samples)


def quality_of(task: Task, documents: Sequence[Document], samples: Sequence[Sample], full: SamplesById) -> Quality:
    """Return the quality of samples by their own scores.

    Args:
        task: that they belong to.
        documents: one per sample, in the same order.
        samples: of one setting.
        full: the samples of full depth of the base.
    """
    corpora = task.corpora(documents, [s.output for s in samples])
    return quality(
        [s.score for s in samples],
        [full[s.id].score for s in samples],
        corpus=next(iter(corpora.values()), None),
        extra=_extra(task, documents, samples, full) | corpora,
        chance=mean_chance(documents),
        same=all(full[s.id] == s for s in samples),
        clusters=clustered(documents),
    )


def _extra(task: Task, documents: Sequence[Document], samples: Sequence[Sample], full: SamplesById) -> dict[str, float]:
    """Means of the secondary metrics and, where text was generated, statistics that a mean hides."""
    means = {n: float(np.mean([s.scores[n] for s in samples])) for n in sorted(samples[0].scores)}
    if task.is_loglikelihood:
        return means
    written = [d.answer(s.output) for d, s in zip(documents, samples, strict=True)]
    written_by_full = [d.answer(full[d.id].output) for d in documents]
    return means | beside(written, [d.references for d in documents], written_by_full, [s.score for s in samples])


def mean_chance(documents: Sequence[Document]) -> float:
    """Return the mean score of guessing."""
    return float(np.mean([d.chance for d in documents]))
