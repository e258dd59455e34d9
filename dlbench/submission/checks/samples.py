"""Checks of samples: exact documents, scores of their outputs, and compute that follows from their routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dlbench.data.document import Document
from dlbench.data.task import Task
from dlbench.records.schema import Record, Sample
from dlbench.submission.checks.rows import row_name, same
from dlbench.submission.contents import TrackDocuments
from dlbench.submission.faults import FaultList
from dlbench.submission.layer_costs import LayerCosts

_Scoring = tuple[float, dict[str, float]]


@dataclass
class SampleChecks:
    """Checks the samples of the rows of one track."""

    own: TrackDocuments
    faults: FaultList
    full: Mapping[str, Sample] = field(default_factory=dict)
    """Samples of the base's full depth by document; empty while they are checked themselves."""
    _scorings: dict[tuple[str, object], list[_Scoring]] = field(default_factory=dict)
    """What the task gives an output, as often as it was asked: twice at most, for tasks that score at random."""

    def check(self, record: Record, samples: Sequence[Sample], costs: LayerCosts) -> list[Sample]:
        """Check the samples of a row.

        Returns:
            The samples, with the scores that the task gives their outputs, whatever they claim; none unless they are of
            exactly the right documents and metrics.
        """
        where, complete = row_name(record), self._documents(record, samples)
        scored = []
        for sample in samples:
            if (document := self.own.by_id.get(sample.id)) is not None:
                here = f"{where}, document {sample.id!r}"
                scored.append(self._score(here, document, sample))
                self._prompt(record, here, sample)
                self._compute(record, here, sample, costs)
        known = [s for s in scored if s is not None]
        alike = len({frozenset(s.scores) for s in samples}) == 1
        return known if complete and alike and len(known) == len(samples) else []

    def _documents(self, record: Record, samples: Sequence[Sample]) -> bool:
        where, add = row_name(record), self.faults.add
        ids, wanted = [s.id for s in samples], [d.id for d in self.own.documents]
        if missing := sorted(set(wanted) - set(ids)):
            add("samples-missing", where, f"{len(missing)} documents, such as {missing[0]!r}")
        if unknown := sorted(set(ids) - set(wanted)):
            add("sample-unknown", where, f"{len(unknown)} documents, such as {unknown[0]!r}")
        if len(set(ids)) < len(ids):
            twice = next(i for i in ids if ids.count(i) > 1)
            add("sample-twice", where, f"document {twice!r}")
        elif set(ids) == set(wanted) and ids != wanted:
            add("sample-order", where, "the documents are in another order than the task's")
        return ids == wanted and bool(ids)

    def _score(self, where: str, document: Document, sample: Sample) -> Sample | None:
        """Return the sample as the task scores it; None where its answers are not those of the document."""
        task = self.own.task
        if task.is_loglikelihood and len(sample.answers) != len(document.pairs):
            self.faults.add("score-differs", where, f"{len(sample.answers)} answers of {len(document.pairs)}")
            return None
        known = self._scorings.setdefault((document.id, sample.answers or sample.output), [])
        while not any(_agree(sample, scoring) for scoring in known):
            if len(known) == 2:
                score, scores = known[0]
                self.faults.add("score-differs", where, f"it claims {sample.score:g}, the task gives {score:g}")
                return sample.model_copy(update={"score": score, "scores": scores})
            known.append(_scoring(task, document, sample))
        return sample

    def _prompt(self, record: Record, where: str, sample: Sample) -> None:
        full = self.full.get(sample.id)
        if full is None or record.backbone.sha256 != record.backbone.base_sha256:
            return
        if (sample.tokens.prompt, sample.truncated) != (full.tokens.prompt, full.truncated):
            if self.own.task.is_loglikelihood and sample.truncated == full.truncated:
                return  # how many texts ran is up to the method
            self.faults.add("prompt-differs", where, "full depth read another number of tokens, or cut it otherwise")

    def _compute(self, record: Record, where: str, sample: Sample, costs: LayerCosts) -> None:
        add = self.faults.add
        if sample.executed_flops < sample.flops.total and record.run.kv != "recompute":
            add("flops-executed", where, f"{sample.executed_flops:,} executed, {sample.flops.total:,} credited")
        forwards = len(sample.layers)
        if sum(n for _, n in sample.routes) != forwards or any(len(route) != costs.depth for route, _ in sample.routes):
            add("routes-shape", where, f"{forwards} forwards through {costs.depth} layers")
            return
        if self.own.task.is_loglikelihood:
            self._layers(record, where, sample, costs)
            return
        if forwards != max(sample.tokens.generated - 1, 0) or len(sample.pieces) not in (0, sample.tokens.generated):
            add("tokens-forwards", where, f"{sample.tokens.generated} tokens in {forwards} forwards")
            return
        self._layers(record, where, sample, costs)
        self._flops(record, where, sample, costs)
        self._prompt_flops(record, where, sample, costs)

    def _layers(self, record: Record, where: str, sample: Sample, costs: LayerCosts) -> None:
        """Executed layers are those of the routes, and more only where later tokens made old ones run again."""
        if sample.speculation is not None:
            return  # a round of verification reads several tokens, of which not all stand
        depths, ran = costs.route_cost(sample.routes, sample.tokens.prompt).depths, np.array(sample.layers)
        again = record.run.kv == "recompute" and record.method.scope == "token"
        if (ran < depths - 1e-6).any() or (not again and (ran > depths + 1e-6).any()):
            self.faults.add("layers-differ", where, f"{ran.sum():.3f} layers claimed, {depths.sum():.3f} routed")

    def _flops(self, record: Record, where: str, sample: Sample, costs: LayerCosts) -> None:
        add, flops, forwards = self.faults.add, sample.flops, len(sample.layers)
        if sample.speculation is not None:
            ran = sum(sample.layers)
            each = costs.parts[3]
            if not int(each.min()) * ran * 0.999 <= flops.layers <= int(each.max()) * ran * 1.001 + 1:
                add("flops-layers", where, f"{flops.layers:,} for {ran:.1f} layers")
            return
        routed = costs.route_cost(sample.routes, sample.tokens.prompt)
        if flops.layers != routed.layers:
            add("flops-layers", where, f"{flops.layers:,} claimed, {routed.layers:,} by the routes")
        evicted = record.run.kv == "evict"
        if flops.attention != routed.attention and not (evicted and flops.attention < routed.attention):
            add("flops-attention", where, f"{flops.attention:,} claimed, {routed.attention:,} by the routes")
        # A token that ran the last layer did not exit, so that its logits were computed at the end.
        ended = sum(times for route, times in sample.routes if route[-1] != "0")
        around, spared = costs.heads(forwards), (forwards - ended) * costs.vocabulary
        is_full = record.method.name == "full"
        if flops.heads < around - spared or (record.method.scope == "static" and flops.heads != around):
            add("flops-heads", where, f"{flops.heads:,} claimed, {around:,} for {forwards} forwards")
        most = None if record.run.kv == "recompute" else 0 if evicted else routed.fills
        if most is not None and flops.kv > most:
            add("flops-kv", where, f"{flops.kv:,} claimed, {most:,} at most")
        if is_full and (flops.kv or flops.router or any(set(route) != {"3"} for route, _ in sample.routes)):
            add("full-skips", where, "it skips layers, or pays for keys and values or a router")

    def _prompt_flops(self, record: Record, where: str, sample: Sample, costs: LayerCosts) -> None:
        if record.run.prompt != "full":
            return
        known = costs.prompt(sample.tokens.prompt)
        if sample.prompt_flops < known or (sample.prompt_flops > known and not sample.reread):
            self.faults.add("flops-prompt", where, f"{sample.prompt_flops:,} claimed, {known:,} for its length")


def _scoring(task: Task, document: Document, sample: Sample) -> _Scoring:
    metrics = task.weigh(document, sample.answers) if task.is_loglikelihood else task.score(document, sample.output)
    scores = dict(metrics)
    return scores.pop(task.metric), scores


def _agree(sample: Sample, scoring: _Scoring) -> bool:
    score, scores = scoring
    return (
        same(sample.score, score)
        and sample.scores.keys() == scores.keys()
        and all(same(sample.scores[name], value) for name, value in scores.items())
    )
