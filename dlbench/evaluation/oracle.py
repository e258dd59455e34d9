"""Oracle rows: what choosing the best candidate per document would give, with and without the luck of choosing.

oracle         the best candidate under the primary metric; flattered, since it takes the best of several noisy scores
oracle@full    the same choice among as many full-depth outputs, one greedy and the others sampled
oracle_cross   chosen on half of the references, scored on the other half, both ways
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dlbench.data.document import Document
from dlbench.evaluation.aggregate import Evaluation, clustered, quality
from dlbench.evaluation.knapsack import IntArray, Knapsack, best_of, cross
from dlbench.evaluation.record import build
from dlbench.evaluation.settings import Setting
from dlbench.method import Oracle
from dlbench.records.run_folder import Store
from dlbench.records.schema import CandidateScore, Record, Sample
from dlbench.stats.resample import FloatArray

SamplesOf = Callable[[str], Mapping[str, Sample]]
"""From the key of a setting to its samples by document id; asked for one key after the other, since all are many."""


@dataclass
class OracleRows:
    """Computes the rows of one oracle on one task from the samples of its candidates."""

    evaluation: Evaluation
    given: str
    """The oracle as the user gave it."""
    oracle: Oracle
    settings: Sequence[Setting]
    """The candidates and the sampled full-depth outputs."""
    samples: SamplesOf
    """Gives those of any of the settings."""
    store: Store
    """Where chosen samples and candidate scores are written."""
    records: list[Record] = field(default_factory=list)

    def run(self, budgets: Sequence[float]) -> list[Record]:
        """Solve the knapsack at every budget; write the chosen samples and the scores of all candidates.

        Args:
            budgets: average layer shares.
        """
        solved = Knapsack(self.weights, self.scores)
        least = solved.reach(float(self.scores[:, self.full_index].mean()))
        assert least is not None  # full depth is a candidate
        note = f"equals full quality at {least.depth / self.depth:.3f} of the layers"
        halves = self._scores_by_half()
        for budget in budgets:
            choice = solved.choose(budget * self.depth)
            if choice is None:
                continue
            self._record("oracle", budget, self._named(choice.items), notes=(note,))
            if halves is not None:
                self._cross_row(budget, halves)
        best = best_of(self._score_table(self.fulls))
        labels = ["greedy" if s.sample is None else f"sample-{s.sample}" for s in self.fulls]
        self._record("oracle@full", None, [(self.fulls[i], labels[i]) for i in best.items])
        return self.records

    @property
    def documents(self) -> Sequence[Document]:
        """All documents, in order."""
        return self.evaluation.documents

    @property
    def depth(self) -> int:
        """Layers of the backbone."""
        return self.evaluation.conditions.backbone.depth

    @cached_property
    def candidates(self) -> list[Setting]:
        """The settings that are chosen among."""
        return [s for s in self.settings if s.purpose == "candidate"]

    @cached_property
    def fulls(self) -> list[Setting]:
        """Full depth: decoded greedily, and sampled."""
        return [s for s in self.settings if s.name == "full"]

    @cached_property
    def full_index(self) -> int:
        """Index of full depth among the candidates."""
        return [_name(s) for s in self.candidates].index("full")

    @cached_property
    def weights(self) -> IntArray:
        """Layers of each candidate, [candidates]."""
        return np.array([len(s.candidate.layers) for s in self.candidates if s.candidate])

    @cached_property
    def scores(self) -> FloatArray:
        """Scores of the candidates, [documents, candidates]."""
        return self._score_table(self.candidates)

    def _score_table(self, settings: Sequence[Setting]) -> FloatArray:
        columns = []
        for setting in settings:
            samples = self.samples(setting.key)
            columns.append([samples[d.id].score for d in self.documents])
        return np.array(columns).T

    def _scores_by_half(self) -> tuple[FloatArray, FloatArray] | None:
        """Scores on every second reference and on the others, [documents, candidates] each; None for one reference."""
        if min(len(d.references) for d in self.documents) < 2:
            return None
        first, second = (self._scores_on(start) for start in (0, 1))
        return first, second

    def _scores_on(self, start: int) -> FloatArray:
        """Scores of the candidates on every second reference from one on, [documents, candidates]."""
        task = self.evaluation.conditions.task

        def score(document: Document, output: str) -> float:
            return task.choose_references(document, output, range(start, len(document.references), 2))

        columns = []
        for setting in self.candidates:
            samples = self.samples(setting.key)
            columns.append([score(d, samples[d.id].output) for d in self.documents])
        return np.array(columns).T

    def _named(self, items: IntArray) -> list[tuple[Setting, str]]:
        """The chosen candidates with their names, one per document."""
        return [(self.candidates[i], _name(self.candidates[i])) for i in items]

    def _cross_row(self, budget: float, halves: tuple[FloatArray, FloatArray]) -> None:
        """Add the row of choices that are scored on references that they were not made by."""
        chosen, held_out, full_held_out = [], [], []
        for choose_on, score_on in (halves, halves[::-1]):
            crossed = cross(choose_on, score_on, self.weights, budget * self.depth)
            assert crossed is not None
            chosen.append(crossed.items)
            held_out.append(score_on[np.arange(len(self.documents)), crossed.items])
            full_held_out.append(score_on[:, self.full_index])
        scores = np.mean(held_out, axis=0).tolist()
        self._record(
            "oracle_cross",
            budget,
            self._named(chosen[0]),
            scores=scores,
            scored=quality(scores, np.mean(full_held_out, axis=0).tolist(), clusters=clustered(self.documents)),
            notes=("scored on references that it did not choose by; outputs shown are of the first half's choice",),
        )

    def _record(
        self,
        name: str,
        budget: float | None,
        chosen: Sequence[tuple[Setting, str]],
        *,
        scores: Sequence[float] | None = None,
        **more: Any,
    ) -> None:
        """Add a row, and write its samples and the scores of all candidates.

        Args:
            name: of the row.
            budget: average layer share; None for a choice among full-depth outputs.
            chosen: the setting that each document takes, and its name.
            scores: of the documents, where they are not the chosen samples' own.
            more: passed on to `build`.
        """
        ids = [d.id for d in self.documents]  # unlike other rows, a choice depends on which documents there are
        track, params = self.evaluation.conditions.track, self.oracle.params()
        content = [track, name, budget, [s.key for s in self.settings], params, ids]
        key = hashlib.sha256(repr(content).encode()).hexdigest()[:32]
        picked = [
            sample.model_copy(update={"choice": label})
            for sample, (_, label) in zip(self._picked([s.key for s, _ in chosen]), chosen, strict=True)
        ]
        if scores is not None:  # a row's score is the mean of its samples'
            picked = [one.model_copy(update={"score": score}) for one, score in zip(picked, scores, strict=True)]
        greedy = next(s for s in self.fulls if s.sample is None)
        setting = Setting(name, self.given, greedy.method, budget, key=key)
        shown = {**params, "candidates": len(self.candidates)}
        self.records.append(build(self.evaluation, setting, picked, kind="oracle", params=shown, **more))
        self.store.put(key, picked)
        if name != "oracle@full":
            self.store.put_candidates(key, self._candidate_scores())

    def _picked(self, keys: Sequence[str]) -> list[Sample]:
        """The sample of each document under the key of the setting that it takes."""
        picked: dict[str, Sample] = {}
        for key in dict.fromkeys(keys):
            samples = self.samples(key)
            picked |= {d.id: samples[d.id] for d, its in zip(self.documents, keys, strict=True) if its == key}
        return [picked[d.id] for d in self.documents]

    def _candidate_scores(self) -> list[CandidateScore]:
        """What every candidate scores on every document."""
        lines = []
        for d, scores in zip(self.documents, self.scores.tolist(), strict=True):
            for s, score in zip(self.candidates, scores, strict=True):
                assert s.candidate is not None
                lines.append(
                    CandidateScore(
                        id=d.id,
                        candidate=s.candidate.name,
                        layers=s.candidate.layers,
                        share=len(s.candidate.layers) / self.depth,
                        score=score,
                    )
                )
        return lines


def _name(setting: Setting) -> str:
    assert setting.candidate is not None
    return setting.candidate.name
