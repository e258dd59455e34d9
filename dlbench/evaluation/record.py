"""Build the record of one setting on one task from its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from dlbench.data.thinking import mentioned
from dlbench.evaluation.aggregate import Evaluation, clustered, compute, mean_chance, reached, sample_quality
from dlbench.evaluation.settings import Conditions, Setting, source_sha256
from dlbench.fit.artifacts import Facts
from dlbench.records.schema import (
    BackboneInfo,
    Compute,
    Fit,
    Hardware,
    MethodUsed,
    Quality,
    Record,
    Run,
    Sample,
    TaskUsed,
)
from dlbench.system.hardware import hardware

Kind = Literal["method", "oracle", "dense"]


def build(
    evaluation: Evaluation,
    setting: Setting,
    samples: Sequence[Sample],
    *,
    kind: Kind = "method",
    scored: Quality | None = None,
    params: Mapping[str, object] | None = None,
    notes: Sequence[str] = (),
) -> Record:
    """Return one record from its samples.

    Args:
        evaluation: backbone, task, documents and full depth.
        setting: what ran.
        samples: one per document, in the same order.
        kind: an oracle cannot be deployed; "dense" is full depth of a smaller model.
        scored: the quality, where it is not the mean of the samples' scores (an oracle's).
        params: shown instead of the method's own.
        notes: remarks to put first.
    """
    conditions, base = evaluation.conditions, evaluation.base
    cost = compute(samples, base)
    # An oracle may spend its budget but need not: it stops where more layers do not help.
    budget = setting.budget
    missed = kind == "method" and budget is not None and not reached(cost.layer_share, budget, base.depth)
    remarks = [*notes, *conditions.notes]
    if missed:
        remarks.append(_why_missed(setting.fit, cost.layer_share, base.depth))
    if kind == "method" and setting.name != "full" and _never_skipped(samples, cost, conditions.backbone.depth):
        remarks.append("never acted: every token ran every layer")
    remarks += _sample_notes(evaluation, samples, cost)
    scored = scored or sample_quality(evaluation, samples)
    if conditions.compared is not None:
        own = conditions.compared == conditions.backbone.sha256
        full = "this backbone's own full depth" if own else "its full depth before it was quantised"
        remarks.append(f"the base backbone did not run: all shares are of {full}")
    return Record(
        key=setting.key,
        track=conditions.track,
        backbone=_backbone(conditions),
        method=_method(setting, kind, params),
        task=_task(evaluation, samples),
        run=_run(conditions, setting),
        quality=scored,
        compute=cost,
        status="unreachable" if missed else "ok",
        fit=_fit(setting),
        notes=tuple(remarks),
        env=_env(evaluation),
        hardware=Hardware(**hardware(str(conditions.backbone.device))),
    )


def _why_missed(fit: Facts | None, share: float, depth: int) -> str:
    """Say why a budget is missed: no setting is closer, or these documents run another share than those tuned on."""
    if fit and fit.budget is not None and fit.realised is not None and reached(fit.realised, fit.budget, depth):
        return f"tuned to {fit.realised:.3f} of the layers on other documents, runs {share:.3f} of them here"
    return f"the closest setting runs {share:.3f} of the layers"


def _never_skipped(samples: Sequence[Sample], cost: Compute, depth: int) -> bool:
    return cost.layer_share >= 1 and all(n == depth for s in samples for n in s.layers)


def _sample_notes(evaluation: Evaluation, samples: Sequence[Sample], cost: Compute) -> list[str]:
    """Remarks on drafted tokens, prompts that were cut, texts that were read again, and thinking."""
    documents, notes, count = evaluation.documents, [], len(samples)
    if (drafts := cost.speculation) is not None and drafts.drafted:
        notes.append(f"{drafts.accepted / drafts.drafted:.0%} of {drafts.drafted:,} drafted tokens stood")
    if cut := sum(s.truncated for s in samples):
        notes.append(f"{cut} of {count} prompts were cut to fit the context")
    if reread := sum(s.reread for s in samples):
        notes.append(f"{reread} of {count} texts outgrew the original context and were read again, as by generate")
    pairs = zip(documents, samples, strict=True)
    if unfinished := sum(d.thinking is not None and d.thinking.unfinished(s.output) for d, s in pairs):
        notes.append(f"{unfinished} of {count} outputs hold no end of the thinking before the answer")
    if not evaluation.conditions.task.is_loglikelihood and all(d.thinking is None for d in documents):
        thought, mark = mentioned(s.output for s in samples)
        if thought:
            notes.append(
                f"{thought} of {count} outputs hold thinking, which is scored with the answer: "
                f"--think-end-token '{mark}' scores what follows it"
            )
    return notes


def _backbone(conditions: Conditions) -> BackboneInfo:
    backbone = conditions.backbone
    return BackboneInfo(
        name=backbone.name,
        family=backbone.kind,
        layers=backbone.depth,
        dtype=backbone.dtype,
        sha256=backbone.sha256,
        base_sha256=conditions.base_sha256,
        quantization=backbone.quantization,
        adapter_of=backbone.adapter_of or None,
    )


def _method(setting: Setting, kind: Kind, params: Mapping[str, object] | None) -> MethodUsed:
    knob = setting.method.knob
    return MethodUsed(
        name=setting.name,
        params=dict(setting.method.params() if params is None else params),  # type: ignore[arg-type]
        source_sha256=source_sha256(setting.given),
        deployable=kind != "oracle",
        kind=kind,
        knob=None if knob is None or kind == "oracle" else knob.name,
        scope=setting.method.scope,
    )


def _task(evaluation: Evaluation, samples: Sequence[Sample]) -> TaskUsed:
    conditions, documents = evaluation.conditions, evaluation.documents
    task, sources = conditions.task, clustered(documents)
    return TaskUsed(
        name=task.name,
        version=task.version,
        metric=task.metric,
        n=len(samples),
        truncated=sum(s.truncated for s in samples),
        with_bos=conditions.with_bos,
        of=conditions.of,
        drawn=_drawn(conditions, len(samples)),
        sources=None if sources is None else len(set(sources)),
        fit_split=task.fit_split,
        fit_overlap=conditions.fit_overlap,
        signature=task.signature(documents),
        chance=mean_chance(documents),
        chat_template=conditions.chat_sha256,
        think_end_token=next((d.thinking.end for d in documents if d.thinking is not None), None),
    )


def _run(conditions: Conditions, setting: Setting) -> Run:
    return Run(
        budget=setting.budget,
        prompt=conditions.prompt,
        kv=conditions.kv(setting.method),
        state=conditions.state(setting.method),
        seed=setting.seed,
        max_new_tokens=conditions.task.max_new_tokens,
    )


def _env(evaluation: Evaluation) -> dict[str, str]:
    """Versions of packages and of the data, and where it ran."""
    conditions = evaluation.conditions
    data = {"data": conditions.task.data} if conditions.task.data else {}
    return {**conditions.versions, **data, **evaluation.env}


def _drawn(conditions: Conditions, documents: int) -> Literal["all", "sample", "first"] | None:
    """Which documents of the scored split a record covers."""
    if conditions.of is None:
        return None
    if conditions.of == documents:
        return "all"
    return "first" if conditions.limit_first else "sample"


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
