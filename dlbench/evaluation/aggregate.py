"""From samples to records: means, shares and intervals over the documents of a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dlbench.data.rows.sources import clusters
from dlbench.data.task import Document
from dlbench.data.thinking import mentioned
from dlbench.engine.flops.costs import CATEGORIES, Costs
from dlbench.evaluation.settings import Place, Setting, source_sha256
from dlbench.evaluation.text_stats import beside
from dlbench.fit.artifacts import Facts
from dlbench.records.schema import (
    BackboneInfo,
    Compute,
    Fit,
    Flops,
    MethodUsed,
    Quality,
    Record,
    Run,
    Sample,
    Speculation,
    Tokens,
)
from dlbench.records.schema import Task as TaskUsed
from dlbench.stats import retained

Samples = Mapping[str, Sample]
"""Document id → sample."""


@dataclass(frozen=True)
class Reference:
    """What full depth of the base backbone did on the same documents; all shares and ratios are against it."""

    depth: int
    costs: Costs
    samples: Samples
    stand_in: bool = False
    """True where the base did not run and the derived backbone's own full depth takes its place for the shares."""


def reached(share: float, budget: float, depth: int) -> bool:
    """Whether a realised layer share counts as the budget: within max(0.03, half a layer)."""
    return abs(share - budget) <= max(0.03, 0.5 / depth) + 1e-9


def layer_share(samples: Sequence[Sample], depth: int) -> float:
    """Executed layer calls ÷ (depth × decode forwards), averaged over the documents that had any decode forward."""
    shares = [sum(s.layers) / (depth * len(s.layers)) for s in samples if s.layers]
    return float(np.mean(shares)) if shares else 1.0


def compute(samples: Sequence[Sample], base: Reference) -> Compute:
    """Cost of these samples as shares of the base's full depth."""
    decode, whole = [], []
    for s in samples:
        full = base.samples[s.id]
        if s.layers:
            # Where answers are weighed nothing is generated, and full depth ran the same texts.
            weighed = s.tokens.generated == 0
            dense = full.flops.total if weighed else base.costs.dense(s.tokens.prompt, s.tokens.generated)
            decode.append(s.flops.total / dense)
        whole.append((s.prompt_flops + s.flops.total) / (full.prompt_flops + full.flops.total))
    return Compute(
        layer_share=layer_share(samples, base.depth),
        flop_share_decode=float(np.mean(decode)) if decode else 1.0,
        flop_share_total=float(np.mean(whole)),
        flops=Flops(**{c: sum(getattr(s.flops, c) for s in samples) for c in CATEGORIES}),
        executed_flops=sum(s.executed_flops for s in samples),
        tokens=Tokens(prompt=sum(s.tokens.prompt for s in samples), generated=sum(s.tokens.generated for s in samples)),
        speculation=_account([s.speculation for s in samples if s.speculation is not None]),
    )


def _account(several: Sequence[Speculation]) -> Speculation | None:
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
    """Mean score, and what it keeps of full depth, with its interval; both sequences are over the same documents.

    What guessing scores is taken off both; with `same` the two are one run, full depth beside itself. `clusters` are
    those of the documents, where some share a source.
    """
    kept = retained(scores, full, chance=chance, same=same, clusters=clusters)
    return Quality(
        mean=float(np.mean(scores)),
        corpus=corpus,
        full_mean=float(np.mean(full)),
        retained=None if kept is None else kept.estimate,
        retained_ci95=None if kept is None else (kept.low, kept.high),
        extra=dict(extra),
    )


def clustered(documents: Sequence[Document]) -> tuple[str, ...] | None:
    """The clusters of documents for the statistics; None where each stands for itself."""
    return clusters([d.id for d in documents], {d.id: d.source for d in documents})


def _fit(setting: Setting) -> Fit | None:
    facts = setting.fit
    if facts is None:
        return None
    return Fit(
        seed=facts.seed,
        target=facts.budget,
        realised=facts.realised,
        learnt_from=facts.learnt_from,
        tuned_on=facts.tuned_on,
        tokens=facts.tokens,
        learnt=setting.learnt,
    )


def _missed(fit: Facts | None, share: float, depth: int) -> str:
    """Why a budget is missed: nothing comes nearer, or these documents take another share than those tuned on."""
    if fit and fit.budget is not None and fit.realised is not None and reached(fit.realised, fit.budget, depth):
        return f"tuned to {fit.realised:.3f} of the layers on other documents, runs {share:.3f} of them here"
    return f"the closest setting runs {share:.3f} of the layers"


def build(
    place: Place,
    setting: Setting,
    documents: Sequence[Document],
    samples: Sequence[Sample],
    base: Reference,
    env: Mapping[str, str],
    *,
    scored: Quality | None = None,
    deployable: bool = True,
    kind: str = "method",
    params: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
) -> Record:
    """One record from its samples, which are in the order of the documents.

    Args:
        place: backbone, task and run.
        setting: what ran.
        documents: all documents of the record.
        samples: one per document.
        base: full depth on the same documents.
        env: where it ran.
        scored: the quality, where it is not the mean of the samples' scores (an oracle's).
        deployable: False for oracles.
        kind: "method", "oracle" or "dense".
        params: shown instead of the method's own.
        notes: remarks to add.
    """
    cost = compute(samples, base)
    own = [*notes, *place.notes]
    budget = setting.budget
    depth = place.backbone.depth
    # An oracle is given a budget to spend, not to meet: it stops where more layers would not help.
    short = kind == "method" and budget is not None and not reached(cost.layer_share, budget, base.depth)
    if short:
        own.append(_missed(setting.fit, cost.layer_share, base.depth))
    if (
        kind == "method"
        and setting.name != "full"
        and cost.layer_share >= 1
        and all(n == depth for s in samples for n in s.layers)
    ):
        own.append("never acted: every token ran every layer")
    if (drafts := cost.speculation) is not None and drafts.drafted:
        own.append(f"{drafts.accepted / drafts.drafted:.0%} of {drafts.drafted:,} drafted tokens stood")
    if cut := sum(s.truncated for s in samples):
        own.append(f"{cut} of {len(samples)} prompts were cut to fit the context")
    if again := sum(s.reread for s in samples):
        own.append(f"{again} of {len(samples)} texts outgrew the original context and were read again, as by generate")
    pairs = zip(documents, samples, strict=True)
    if lost := sum(d.thinking is not None and d.thinking.unfinished(s.output) for d, s in pairs):
        own.append(f"{lost} of {len(samples)} outputs hold no end of the thinking before the answer")
    if not place.task.is_loglikelihood and all(d.thinking is None for d in documents):
        thought, mark = mentioned(s.output for s in samples)
        if thought:
            own.append(
                f"{thought} of {len(samples)} outputs hold thinking, which is scored with the answer: "
                f"--think-end-token '{mark}' scores what follows it"
            )
    chance = float(np.mean([d.chance for d in documents]))
    shared = clustered(documents)
    if scored is None:
        corpora = place.task.corpora(documents, [s.output for s in samples])
        scored = quality(
            [s.score for s in samples],
            [base.samples[s.id].score for s in samples],
            corpus=next(iter(corpora.values()), None),
            extra=_extra(place, documents, samples, base) | corpora,
            chance=chance,
            same=all(base.samples[s.id] == s for s in samples),
            clusters=shared,
        )
    if base.stand_in:
        own.append("the base backbone did not run: shares are of this backbone's own full depth")
        scored = scored.model_copy(update={"full_mean": None, "retained": None, "retained_ci95": None})
    used = setting.method.knob
    return Record(
        key=setting.key,
        track=place.track,
        backbone=BackboneInfo(
            name=place.backbone.name,
            family=place.backbone.kind,
            layers=depth,
            dtype=place.backbone.dtype,
            sha256=place.backbone.sha256,
            base_sha256=place.backbone.base_sha256,
        ),
        method=MethodUsed(
            name=setting.name,
            params=dict(setting.method.params() if params is None else params),  # type: ignore[arg-type]
            source_sha256=source_sha256(setting.given),
            deployable=deployable,
            kind=kind,
            knob=None if used is None or kind == "oracle" else used.name,
            scope=setting.method.scope,
        ),
        task=TaskUsed(
            name=place.task.name,
            version=place.task.version,
            metric=place.task.metric,
            n=len(samples),
            truncated=cut,
            with_bos=place.with_bos,
            of=place.of,
            drawn=_drawn(place, len(samples)),
            sources=None if shared is None else len(set(shared)),
            fit_split=place.task.fit_split,
            fit_overlap=place.fit_overlap,
            signature=place.task.signature(documents),
            chance=chance,
            chat_template=place.chat_sha256,
            think_end_token=next((d.thinking.end for d in documents if d.thinking is not None), None),
        ),
        run=Run(
            budget=budget,
            prompt=place.spec.prompt,
            kv=place.kv(setting.method),
            seed=setting.seed,
            max_new_tokens=place.task.max_new_tokens,
        ),
        quality=scored,
        compute=cost,
        status="unreachable" if short else "ok",
        fit=_fit(setting),
        notes=tuple(own),
        env={**place.versions, **({"data": place.task.data} if place.task.data else {}), **env},
    )


def _drawn(place: Place, documents: int) -> Literal["all", "sample", "first"] | None:
    """Which documents of the scored split a record is of."""
    if place.of is None:
        return None
    if place.of == documents:
        return "all"
    return "first" if place.spec.limit_first else "sample"


def _extra(place: Place, documents: Sequence[Document], samples: Sequence[Sample], base: Reference) -> dict[str, float]:
    """Means of the metrics beside the primary one, and what a mean hides where texts were written."""
    found = {n: float(np.mean([s.scores[n] for s in samples])) for n in sorted(samples[0].scores)}
    if place.task.is_loglikelihood:
        return found
    written = [d.answer(s.output) for d, s in zip(documents, samples, strict=True)]
    full = [d.answer(base.samples[d.id].output) for d in documents]
    return found | beside(written, [d.references for d in documents], full, [s.score for s in samples])
