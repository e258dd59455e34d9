"""Two rows of a board against each other, document by document: what `dlbench compare` shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.errors import DlbenchError
from dlbench.leaderboard.analysis.against import verdict
from dlbench.leaderboard.data.apart import documents_of
from dlbench.leaderboard.data.paired_scores import ScoredEntry, scored_entries
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.leaderboard.data.tracks import Track, label_meant
from dlbench.leaderboard.formatting import percent
from dlbench.records.checksum import read_samples
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
class _Pair:
    """The two settings that are compared on a task."""

    track: Track
    a: ScoredEntry
    b: ScoredEntry


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
        return verdict(self.difference, self.corrected)


def compare(
    run: Path, a: str, b: str, *, at: float | None = None, task: str | None = None, examples: int = 2
) -> list[Comparison]:
    """Compare two rows on every task that has both.

    Args:
        run: a run folder, with samples or published scores.
        a: a label as the board shows it; `-` or `:` may stand for ` · `.
        b: like `a`.
        at: the budget, for rows that have several; without it the one nearest to a half that both have.
        task: only this one.
        examples: documents per task to show, of those that A wins and of those that it loses.

    Raises:
        DlbenchError: there is no such label, budget or task, or the two were not scored on the same documents.
    """
    runs = read_runs([run])
    names = [track.task.name for track in runs.tracks]
    if task is not None and task not in names:
        raise unknown("task", task, names)
    wanted = [track for track in runs.tracks if task in (None, track.task.name)]
    labels = [row.label for track in wanted for row in track.rows]
    a, b = (_meant(label, labels) for label in (a, b))
    if a == b:
        raise DlbenchError(f"{a} against itself says nothing: name two rows")
    pairs = []
    for track in wanted:
        known = scored_entries(track, runs.scores, runs.sources, unreachable=True)
        ours, theirs = ([one for one in known if one.row.label == label] for label in (a, b))
        if ours and theirs:
            pairs.append(_Pair(track, *_at(ours, theirs, at, a, b)))
    if not pairs:
        raise DlbenchError(_not_together(wanted, a, b, run))
    for pair in pairs:
        _check(pair, run)
    p_values = [permutation_p(_scores(one.a), _scores(one.b), clusters=one.a.clusters) for one in pairs]
    return [
        _comparison(pair, p, float(after), _flips(run, pair, examples))
        for pair, p, after in zip(pairs, p_values, corrected(p_values), strict=True)
    ]


def _meant(given: str, labels: Sequence[str]) -> str:
    meant = label_meant(given, labels)
    if meant is None:
        raise unknown("row", given, labels)
    return meant


def _not_together(tracks: Sequence[Track], a: str, b: str, run: Path) -> str:
    """Say why two labels stand in no track together: other tasks, other documents of one, or another base."""
    theirs = [track for track in tracks if any(row.label == b for row in track.rows)]
    for track in tracks:
        here = any(row.label == a for row in track.rows)
        for other in theirs if here else ():
            where = f"{track.task.name} in {run}"
            if track.name == other.name:
                scored = f"{documents_of(track)} and {documents_of(other)}"
                return (
                    f"{a} and {b} were not scored on the same documents of {where}: {scored}; run both with one --limit"
                )
            if track.task.name == other.task.name:
                return f"{a} and {b} are compared with other models, or by other rules, on {where}: no comparison"
    return f"{a} and {b} have no task in common in {run}"


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
    pair = []
    for side in (ours, theirs):
        there = [one for one in side if one.where[0] == budget] or (side if len(side) == 1 else [])
        if not there:
            raise DlbenchError(f"{a} and {b} have no budget in common")
        pair.append(there[0])
    return pair[0], pair[1]


def _check(pair: _Pair, run: Path) -> None:
    """Raise unless both were scored on the same documents."""
    a, b, where = pair.a, pair.b, f"{pair.track.task.name} in {run}"
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


def _comparison(pair: _Pair, p: float, corrected_p: float, flips: tuple[Flip, ...]) -> Comparison:
    a, b = pair.a, pair.b
    ours, theirs = _scores(a), _scores(b)
    return Comparison(
        task=pair.track.task.name,
        metric=pair.track.task.metric,
        track=pair.track.name,
        n=len(a.ids),
        sources=None if a.clusters is None else len(set(a.clusters)),
        a=_side(a),
        b=_side(b),
        difference=paired_difference(ours, theirs, clusters=a.clusters),
        p=p,
        corrected=corrected_p,
        documents=outcomes(ours, theirs),
        detectable=minimum_detectable(ours, theirs, clusters=a.clusters),
        flips=flips,
    )


def _flips(run: Path, pair: _Pair, examples: int) -> tuple[Flip, ...]:
    """Return the documents that differ most: so many that A wins, and so many that it loses."""
    ids = pair.a.ids
    ours, theirs = _scores(pair.a).mean(axis=0), _scores(pair.b).mean(axis=0)  # [documents]
    order = [int(number) for number in np.lexsort((ids, -np.abs(ours - theirs)))]
    chosen = [number for number in order if ours[number] > theirs[number]][:examples]
    chosen += [number for number in order if ours[number] < theirs[number]][:examples]
    outputs = [_outputs(run, entry, [ids[number] for number in chosen]) for entry in (pair.a, pair.b)]
    return tuple(
        Flip(
            id=ids[number],
            a=float(ours[number]),
            b=float(theirs[number]),
            a_output=outputs[0].get(ids[number]),
            b_output=outputs[1].get(ids[number]),
        )
        for number in chosen
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
    return {sample.id: sample.output for sample in read_samples(path) if sample.id in wanted}


def described(comparisons: Sequence[Comparison]) -> str:
    """Return what was compared at which budget, in words."""
    one = comparisons[0]
    budgets = {side.budget for each in comparisons for side in (each.a, each.b) if side.budget is not None}
    at = f" · budget {percent(budgets.pop())} of the layers" if len(budgets) == 1 else ""
    return f"A {one.a.label} · B {one.b.label}{at}"


def as_dict(one: Comparison) -> dict[str, Any]:
    """Return a comparison for programs."""
    return asdict(one) | {"verdict": one.verdict}
