"""What the numbers say in a dozen lines: claims of a kind summed up over tasks and budgets, the exceptions named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from dlbench.leaderboard.analysis.claims import Claim, claims
from dlbench.leaderboard.analysis.enough import SettingScores, enough
from dlbench.leaderboard.data.paired_scores import SLACK, ScoredEntry, curve_of, entries, usual
from dlbench.leaderboard.data.run_files import NO_SOURCES, Scores, Sources
from dlbench.leaderboard.data.tracks import Track, build_tracks
from dlbench.leaderboard.formatting import decimals, percent
from dlbench.records.schema import Record
from dlbench.stats import gap_closed

Where = tuple[str, float | None]
"""A task and a budget."""


def headlines(records: Iterable[Record], scores: Scores, sources: Sources = NO_SOURCES) -> list[str]:
    """Sum up what a board of these records says, a line per question.

    Args:
        records: any number of tracks.
        scores: record key → document id → primary score.
        sources: track → document id → source, of documents that have one.
    """
    found = list(records)
    families: dict[tuple[str, str], list[Claim]] = defaultdict(list)
    for claim in claims(found, scores, sources):
        families[claim.family].append(claim)
    tracks = build_tracks(found)
    known = {track.name: entries(track, scores, sources, unreachable=True) for track in tracks}
    lines = [_line(family) for family in _merged(families.values())]
    return [line for line in (*lines, _enough(tracks, known), _gap(tracks, known)) if line]


def _merged(families: Iterable[list[Claim]]) -> Iterator[list[Claim]]:
    """Put together families that say the same of several subjects: all of them better than one other, or all worse."""
    merged: dict[tuple[object, ...], list[Claim]] = defaultdict(list)
    for family in families:
        verdicts = {claim.verdict for claim in family}
        same = len(verdicts) == 1 and 0 not in verdicts
        merged[(family[0].family[1], *verdicts) if same else family[0].family].extend(family)
    yield from merged.values()


def _line(family: Sequence[Claim]) -> str:
    """Return one line for the claims of a family, or of several that agree."""
    if len(family) == 1:
        return family[0].sentence
    if all(claim.kept is not None for claim in family):
        return _crossed(family)
    subjects = _and(list(dict.fromkeys(claim.family[0] for claim in family)))
    several = len({claim.family[0] for claim in family}) > 1
    other = family[0].family[1]
    told = [claim for claim in family if claim.difference is not None]
    if not told:
        return f"{_upper(subjects)} and {other} were not scored on the same documents: no comparison."
    groups = {verdict: [claim for claim in told if claim.verdict == verdict] for verdict in (1, -1, 0)}
    main = max(groups, key=lambda verdict: len(groups[verdict]))
    verb = {1: "beat" if several else "beats", -1: "lose to" if several else "loses to", 0: "cannot be told from"}[main]
    count = f"all {len(told)}" if len(groups[main]) == len(told) else f"{len(groups[main])} of {len(told)}"
    said = [f"{_upper(subjects)} {verb} {other} in {count} comparisons{_by(groups[main]) if main else ''}"]
    words = {1: "beats it", -1: "loses to it", 0: "undecided"}
    said += [f"{words[verdict]} {_places(some)}" for verdict, some in groups.items() if some and verdict != main]
    if len(told) < len(family):
        said.append(f"on other documents, so not compared, {_places([one for one in family if one not in told])}")
    return "; ".join(said) + "."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _by(family: Sequence[Claim]) -> str:
    """Return the range of the differences, where they are of one scale."""
    sizes = [abs(claim.difference.estimate) for claim in family if claim.difference]
    if len({decimals([size]) for size in sizes}) != 1:
        return ""
    digits = decimals(sizes)
    ends = [f"{min(sizes):.{digits}f}", f"{max(sizes):.{digits}f}"]
    return f", by {ends[0]}" if ends[0] == ends[1] else f", by {ends[0]} to {ends[1]}"


def _places(family: Sequence[Claim]) -> str:
    """Return the tasks and budgets of claims: "on nano_math (25, 50 %) and nano_summary (75 %)"."""
    by_task: dict[str, list[float | None]] = defaultdict(list)
    for claim in family:
        by_task[claim.task].append(claim.budget)
    names = []
    for task, budgets in by_task.items():
        given = sorted({budget for budget in budgets if budget is not None})
        # What is compared at one setting per task needs no budget to be found.
        shown = ", ".join(percent(budget).removesuffix(" %") for budget in given) if len(budgets) == len(given) else ""
        names.append(f"{task} ({shown} %)" if shown else task)
    return "on " + _and(names)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _crossed(family: Sequence[Claim]) -> str:
    by_task: dict[str, list[Claim]] = defaultdict(list)
    for claim in family:
        by_task[claim.task].append(claim)
    parts = []
    for task, some in by_task.items():
        kept = [f"{100 * before:.0f} → {100 * after:.0f} %" for before, after in (one.kept for one in some if one.kept)]
        budgets = [percent(one.budget).removesuffix(" %") for one in some if one.budget is not None]
        at = f" ({', '.join(budgets)} % of the layers)" if len(budgets) == len(some) else ""
        parts.append(f"{', '.join(kept)} on {task}{at}")
    return f"What the oracle keeps of full, scored on references it did not choose by: {'; '.join(parts)}."


def _methods(known: Sequence[ScoredEntry]) -> dict[str, list[ScoredEntry]]:
    """Return what competes, by label: deployable methods on the base backbone, no controls."""
    found: dict[str, list[ScoredEntry]] = defaultdict(list)
    for entry in known:
        method = entry.row.record.method
        control = method.name in ("random_skip", "unified_skip") or method.params.get("fixed_input") is True
        if entry.row.role == "method" and not control and entry.scores is not None:
            found[entry.row.label].append(entry)
    return found


def _enough(tracks: Sequence[Track], known: dict[str, list[ScoredEntry]]) -> str:
    """Say at which layer share any method surely keeps 95 % of full, per task the one of fewest FLOPs.

    It is picked among all methods, so each is held to a bound that is surer by their number (Bonferroni).
    """
    reached: dict[str, list[str]] = defaultdict(list)
    missed = []
    for track in tracks:
        full = next((one for one in known[track.name] if one.row.role == "full" and one.scores is not None), None)
        if full is None or full.scores is None:
            continue
        methods = {
            label: [
                SettingScores(one.total, one.layers, one.scores)
                for one in several
                if one.ids == full.ids and one.scores is not None
            ]
            for label, several in _methods(known[track.name]).items()
        }
        confidence = 1 - 0.05 / max(1, len(methods))
        least = {
            label: enough(
                several, full.scores[0], chance=track.task.chance, confidence=confidence, clusters=full.clusters
            )
            for label, several in methods.items()
        }
        costs = [(one.total, label) for label, one in least.items() if one.total is not None]
        if not costs:
            missed.append(track.task.name)
            continue
        _, best = min(costs)
        of = "" if reached else " of the layers"
        reached[best].append(f"{percent(least[best].layers or 0.0)}{of} on {track.task.name}")
    if not reached and not missed:
        return ""
    said = [f"by {label} at {_and(places)}" for label, places in reached.items()]
    said += [f"by no method on {_and(missed)}"] if missed else []
    return f"With all methods tested together, 95 % of full is surely kept {'; '.join(said)}."


def _kept(entry: ScoredEntry) -> npt.NDArray[np.float64] | None:
    """Return scores as shares of full depth's above chance: the honest oracle's rest on other references, as full's do.

    None where they are not those of the record, as in runs that kept another score beside an oracle's choice.
    """
    quality = entry.row.record.quality
    if entry.scores is None or quality is None or not quality.full_mean:
        return None
    if abs(float(entry.scores[0].mean()) - quality.mean) > 1e-6 * max(1.0, abs(quality.mean)):
        return None
    return entry.row.shares(entry.scores)


def _gap(tracks: Sequence[Track], known: dict[str, list[ScoredEntry]]) -> str:
    """Say which share of the gap from random routing to the honest oracle the best method closes near half the layers.

    Honest is the oracle that was scored on references it did not choose by; tasks without it are left out. The best is
    picked among all methods, so its interval is wider by their number (Bonferroni).
    """
    parts = []
    for track in tracks:
        here = [one for one in known[track.name] if one.ok]
        random = usual(one.row.label for one in here if one.row.record.method.name == "random_skip")
        chosen = [[one for one in here if one.row.record.method.name == "oracle_cross"]]
        chosen.append([one for one in here if one.row.label == random])
        oracle, control = (curve_of(replace(one, scores=_kept(one)) for one in several) for several in chosen)
        if oracle is None or control is None:
            continue
        same = {one.ids for several in chosen for one in several}
        candidates = []
        for entry in (one for several in _methods(here).values() for one in several):
            budget = entry.row.record.run.budget
            ours = _kept(entry)
            if budget is None or abs(budget - 0.5) > SLACK or ours is None:
                continue
            top, bottom = (curve.at(entry.layers, slack=SLACK) for curve in (oracle, control))
            if top is not None and bottom is not None and same == {entry.ids}:
                candidates.append((entry, ours, np.asarray(bottom.scores), np.asarray(top.scores)))
        level = 1 - 0.05 / max(1, len(candidates))
        found = [(gap_closed(*scores, clusters=entry.clusters, level=level), entry) for entry, *scores in candidates]
        told = [(closed, entry) for closed, entry in found if closed is not None]
        if told:
            closed, entry = max(told, key=lambda one: one[0].estimate)
            ends = "{:.0f} % [{:.0f}, {:.0f}]".format(*(100 * x for x in (closed.estimate, closed.low, closed.high)))
            parts.append(f"{ends} by {entry.row.label} on {track.task.name}")
    if not parts:
        return ""
    return f"At half of the layers, the gap from random routing to the honest oracle is closed to {_and(parts)}."
