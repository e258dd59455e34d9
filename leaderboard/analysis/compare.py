"""Two rows of a board against each other, document by document: what `dlbench compare` shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.errors import DlbenchError
from dlbench.leaderboard.data.paired_scores import ScoredEntry, scored_entries
from dlbench.leaderboard.data.run_files import Runs, read_runs
from dlbench.leaderboard.data.tracks import Track
from dlbench.leaderboard.formatting import percent
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Sample
from dlbench.stats import (
    Interval,
    Outcomes,
    corrected,
    minimum_detectable,
    outcomes,
    paired_difference,
    permutation_p,
)
from dlbench.terminal.suggest import unknown


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two rows on one task; shares are of full depth.

    Attributes:
        budget: the layer share it aimed at, None where it had no aim.
        mean: mean score.
        layers: realised layer share.
        total: realised share of the total FLOPs.
        seeds: fit seeds, which are averaged.
        unreachable: whether it missed its budget.
    """

    label: str
    budget: float | None
    mean: float
    layers: float
    total: float
    seeds: int
    unreachable: bool


@dataclass(frozen=True, slots=True)
class Flip:
    """A document on which the two differ, with the outputs where the run has its samples."""

    id: str
    a: float
    b: float
    a_output: str | None = None
    b_output: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rows on one task.

    Attributes:
        track: where they stand; tasks may have several, under other rules.
        n: documents.
        sources: how many sources they come from, where several share one; intervals and tests resample these.
        difference: mean score of A minus B.
        p: paired permutation test.
        corrected: p, corrected over the tasks compared (Benjamini-Hochberg).
        documents: those that A won, lost and tied.
        detectable: least true difference that a test of these documents finds four times in five; None where no
            document differs.
        flips: documents that differ most: those that A wins, the greatest difference first, then those that it loses.
    """

    task: str
    metric: str
    track: str
    n: int
    sources: int | None
    a: Side
    b: Side
    difference: Interval
    p: float
    corrected: float
    documents: Outcomes
    detectable: float | None
    flips: tuple[Flip, ...]

    @property
    def verdict(self) -> int:
        """1 where A is better, −1 where B is, 0 where that can't be said."""
        if self.corrected >= 0.05 or not self.difference.excludes_zero:
            return 0
        return 1 if self.difference.estimate > 0 else -1


def compare(
    run: Path, a: str, b: str, *, at: float | None = None, task: str | None = None, examples: int = 2
) -> list[Comparison]:
    """Compare two rows on every task that has both.

    Args:
        run: a run folder, with samples or published scores.
        a: a label as the board shows it.
        b: like `a`.
        at: the budget, for rows that have several; without it the one nearest to a half that both have.
        task: only this one.
        examples: documents per task to show, of those that A wins and of those that it loses.

    Raises:
        DlbenchError: there is no such label, budget or task, or the two were not scored on the same documents.
    """
    if a == b:
        raise DlbenchError(f"{a} against itself says nothing: name two rows")
    runs = read_runs([run])
    names = [track.task.name for track in runs.tracks]
    if task is not None and task not in names:
        raise unknown("task", task, names)
    wanted = [track for track in runs.tracks if task in (None, track.task.name)]
    labels = [row.label for track in wanted for row in track.rows]
    for label in (a, b):
        if label not in labels:
            raise unknown("row", label, labels)
    pairs = []
    for track in wanted:
        known = scored_entries(track, runs.scores, runs.sources, unreachable=True)
        ours, theirs = ([one for one in known if one.row.label == label] for label in (a, b))
        if ours and theirs:
            pairs.append((track, *_at(ours, theirs, at, a, b)))
    if not pairs:
        raise DlbenchError(f"{a} and {b} have no task in common in {run}")
    for track, one, other in pairs:
        _check(track, one, other, run)
    p_values = [permutation_p(_scores(one), _scores(other), clusters=one.clusters) for _, one, other in pairs]
    return [
        _comparison(runs, run, *pair, p, float(after), examples)
        for pair, p, after in zip(pairs, p_values, corrected(p_values), strict=True)
    ]


def _at(
    ours: Sequence[ScoredEntry], theirs: Sequence[ScoredEntry], at: float | None, a: str, b: str
) -> tuple[ScoredEntry, ScoredEntry]:
    """Return the two entries of one budget; a row that has a single setting stands at every budget of the other."""
    aims = [{one.where[0] for one in side if one.where[0] is not None} for side in (ours, theirs)]
    common = aims[0] & aims[1]
    if not common and min(len(ours), len(theirs)) == 1:
        common = aims[1] if len(ours) == 1 and len(theirs) > 1 else aims[0] or aims[1]
    if at is not None and common and at not in common:
        offered = ", ".join(f"{one:g}" for one in sorted(common))
        raise DlbenchError(f"--at {at:g}: {a} and {b} can be compared at {offered}")
    budget = at if at is not None else min(common, key=lambda one: (abs(one - 0.5), one), default=None)
    found = []
    for side in (ours, theirs):
        there = [one for one in side if one.where[0] == budget] or (side if len(side) == 1 else [])
        if not there:
            raise DlbenchError(f"{a} and {b} have no budget in common")
        found.append(there[0])
    return found[0], found[1]


def _check(track: Track, a: ScoredEntry, b: ScoredEntry, run: Path) -> None:
    where = f"{track.task.name} in {run}"
    for one in (a, b):
        if not one.ids:
            raise DlbenchError(f"no scores of {one.row.label} on {where}: its samples/ or scores.jsonl are needed")
        if one.scores is None:
            raise DlbenchError(f"the fit seeds of {one.row.label} have other documents of {where}: run them alike")
    if a.ids != b.ids:
        common = len({*a.ids} & {*b.ids})
        raise DlbenchError(
            f"{a.row.label} and {b.row.label} were not scored on the same documents of {where}: {len(a.ids)} and "
            f"{len(b.ids)}, {common} in common; run both with one --limit"
        )


def _scores(entry: ScoredEntry) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    assert entry.scores is not None
    return entry.scores


def _comparison(
    runs: Runs, run: Path, track: Track, a: ScoredEntry, b: ScoredEntry, p: float, after: float, examples: int
) -> Comparison:
    ours, theirs = _scores(a), _scores(b)
    means = ours.mean(axis=0), theirs.mean(axis=0)
    size = np.abs(means[0] - means[1])
    order = [int(place) for place in np.lexsort((a.ids, -size))]
    won = [place for place in order if means[0][place] > means[1][place]][:examples]
    order = won + [place for place in order if means[0][place] < means[1][place]][:examples]
    said = [_outputs(run, entry, [a.ids[place] for place in order]) for entry in (a, b)]
    flips = tuple(
        Flip(
            id=a.ids[place],
            a=float(means[0][place]),
            b=float(means[1][place]),
            a_output=said[0].get(a.ids[place]),
            b_output=said[1].get(a.ids[place]),
        )
        for place in order
    )
    return Comparison(
        task=track.task.name,
        metric=track.task.metric,
        track=track.name,
        n=len(a.ids),
        sources=None if a.clusters is None else len(set(a.clusters)),
        a=_side(a),
        b=_side(b),
        difference=paired_difference(ours, theirs, clusters=a.clusters),
        p=p,
        corrected=after,
        documents=outcomes(ours, theirs),
        detectable=minimum_detectable(ours, theirs, clusters=a.clusters),
        flips=flips,
    )


def _side(entry: ScoredEntry) -> Side:
    return Side(
        label=entry.row.label,
        budget=entry.where[0],
        mean=float(_scores(entry).mean()),
        layers=entry.layers,
        total=entry.total,
        seeds=len(entry.rows),
        unreachable=not entry.row.ok,
    )


def _outputs(run: Path, entry: ScoredEntry, ids: Iterable[str]) -> dict[str, str]:
    """Return the outputs of some documents, of the first fit seed, as far as the run has its samples."""
    path, wanted = run / "samples" / f"{entry.row.record.key}.jsonl", set(ids)
    if not wanted or not path.is_file():
        return {}
    return {sample.id: sample.output for sample in read_lines(path, Sample) if sample.id in wanted}


def described(comparisons: Sequence[Comparison]) -> str:
    """Return what was compared at which budget, in words."""
    one = comparisons[0]
    budgets = {side.budget for each in comparisons for side in (each.a, each.b) if side.budget is not None}
    at = f" · budget {percent(budgets.pop())} of the layers" if len(budgets) == 1 else ""
    return f"A {one.a.label} · B {one.b.label}{at}"


def as_dict(one: Comparison) -> dict[str, Any]:
    """Return a comparison for programs."""
    return asdict(one) | {"verdict": one.verdict}
