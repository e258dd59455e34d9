"""Oracle rows: what choosing the best candidate per document would give, raw and honest.

oracle         the best candidate under the primary metric; flattered by choosing the best of several noisy scores
oracle@full    the same choice among as many full-depth outputs, one greedy and the others sampled
oracle_cross   chosen on half of the references, scored on the other half, both ways
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from dlbench.data.task import Document
from dlbench.evaluation.aggregate import Reference, build, clustered, quality
from dlbench.evaluation.knapsack import FloatArray, Knapsack, best_of, cross
from dlbench.evaluation.settings import Place, Setting
from dlbench.method import Oracle
from dlbench.records.run_folder import Store
from dlbench.records.schema import CandidateScore, Record, Sample

Table = Mapping[str, Mapping[str, Sample]]
"""Setting key → document id → sample."""


def rows(
    place: Place,
    given: str,
    oracle: Oracle,
    settings: Sequence[Setting],
    budgets: Sequence[float],
    documents: Sequence[Document],
    samples: Table,
    base: Reference,
    store: Store,
    env: Mapping[str, str],
) -> list[Record]:
    """Solve the knapsack at every budget; write the chosen samples and the table of all candidates.

    Args:
        place: backbone, task and run.
        given: how the registry finds the oracle's source.
        oracle: published the candidates.
        settings: the candidates and the sampled full-depth outputs.
        budgets: average layer shares.
        documents: all documents, in order.
        samples: of all settings.
        base: full depth.
        store: where samples go.
        env: where it ran.
    """
    candidates = [s for s in settings if s.part == "candidate"]
    fulls = [s for s in settings if s.name == "full"]
    depth = place.backbone.depth
    weights = np.array([len(s.candidate.layers) for s in candidates if s.candidate])
    scores = _table(candidates, documents, samples)
    rows_: list[Record] = []

    def record(
        name: str,
        budget: float | None,
        chosen: Sequence[tuple[Setting, str]],
        held_out: Sequence[float] | None = None,
        **more: object,
    ) -> None:
        ids = [d.id for d in documents]  # unlike other rows, a choice depends on which documents there are
        content = [place.track, name, budget, [s.key for s in settings], oracle.params(), ids]
        key = hashlib.sha256(repr(content).encode()).hexdigest()[:32]
        picked = [
            samples[s.key][d.id].model_copy(update={"choice": label})
            for (s, label), d in zip(chosen, documents, strict=True)
        ]
        if held_out is not None:  # what a row says is the mean of its samples
            picked = [one.model_copy(update={"score": score}) for one, score in zip(picked, held_out, strict=True)]
        full = next(s for s in fulls if s.sample is None)
        setting = Setting(name, given, full.method, budget, key=key)
        rows_.append(
            build(
                place, setting, documents, picked, base, env, deployable=False, kind="oracle",
                params={**oracle.params(), "candidates": len(candidates)}, **more,  # type: ignore[arg-type]
            )
        )  # fmt: skip
        store.put(key, picked)
        if name != "oracle@full":
            store.put_candidates(key, _candidates(candidates, documents, samples, depth))

    solved = Knapsack(weights, scores)
    full_at = [c.name for c in candidates].index("full")
    least = solved.reach(float(scores[:, full_at].mean()))
    assert least is not None  # full is a candidate
    reach = f"equals full quality at {least.depth / depth:.3f} of the layers"
    halves = _halves(place, candidates, documents, samples)
    for budget in budgets:
        choice = solved.choose(budget * depth)
        if choice is None:
            continue
        chosen = [(candidates[i], _label(candidates[i])) for i in choice.items]
        record("oracle", budget, chosen, notes=(reach,))
        if halves is None:
            continue
        picks, held_out, full_held_out = [], [], []
        for choose_on, score_on in (halves, halves[::-1]):
            crossed = cross(choose_on, score_on, weights, budget * depth)
            assert crossed is not None
            picks.append(crossed.items)
            held_out.append(score_on[np.arange(len(documents)), crossed.items])
            full_held_out.append(score_on[:, full_at])
        record(
            "oracle_cross",
            budget,
            [(candidates[i], _label(candidates[i])) for i in picks[0]],
            held_out=np.mean(held_out, axis=0).tolist(),
            scored=quality(
                np.mean(held_out, axis=0).tolist(),
                np.mean(full_held_out, axis=0).tolist(),
                clusters=clustered(documents),
            ),
            notes=("scored on references that it did not choose by; outputs shown are of the first half's choice",),
        )
    best = best_of(_table(fulls, documents, samples))
    labels = ["greedy" if s.sample is None else f"sample-{s.sample}" for s in fulls]
    record("oracle@full", None, [(fulls[i], labels[i]) for i in best.items])
    return rows_


def _label(setting: Setting) -> str:
    assert setting.candidate is not None
    return setting.candidate.name


def _table(settings: Sequence[Setting], documents: Sequence[Document], samples: Table) -> FloatArray:
    return np.array([[samples[s.key][d.id].score for s in settings] for d in documents])


def _halves(
    place: Place, candidates: Sequence[Setting], documents: Sequence[Document], samples: Table
) -> tuple[FloatArray, FloatArray] | None:
    """Scores on every second reference and on the others: two tables [documents, candidates]."""
    if min(len(d.references) for d in documents) < 2:
        return None
    tables = []
    for start in (0, 1):
        tables.append(
            np.array(
                [
                    [
                        place.task.choose_references(d, samples[s.key][d.id].output, range(start, len(d.references), 2))
                        for s in candidates
                    ]
                    for d in documents
                ]
            )
        )
    return tables[0], tables[1]


def _candidates(
    settings: Sequence[Setting], documents: Sequence[Document], samples: Table, depth: int
) -> list[CandidateScore]:
    lines = []
    for d in documents:
        for s in settings:
            assert s.candidate is not None
            lines.append(
                CandidateScore(
                    id=d.id,
                    candidate=s.candidate.name,
                    layers=s.candidate.layers,
                    share=len(s.candidate.layers) / depth,
                    score=samples[s.key][d.id].score,
                )
            )
    return lines
