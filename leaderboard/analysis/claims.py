"""Claims: the comparisons that every board makes, paired and with intervals, each as a sentence.

Every claim names the methods that it is about. One about a class of methods is made for the best member of each class,
chosen on documents that are not scored (`dlbench.leaderboard.analysis.method_classes`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dlbench.leaderboard.analysis.against import against, verdict
from dlbench.leaderboard.analysis.method_classes import Speaker, class_of, speaker
from dlbench.leaderboard.data.paired_scores import ScoredEntry, comparable, matched, scored_entries
from dlbench.leaderboard.data.run_files import NO_SOURCES, Scores, Sources
from dlbench.leaderboard.data.tracks import CONTROLS, Track
from dlbench.leaderboard.formatting import decimals, percent
from dlbench.stats import Interval, corrected


@dataclass(frozen=True, slots=True)
class Claim:
    """One comparison.

    Attributes:
        task, track: where it was made; of the track its anchor.
        condition: at which cost, in words.
        subject, other: what was compared, in words.
        difference: mean score of subject minus other, paired by document; None where the documents differ. Of a control
            with variants, the one that is least favourable to what is said.
        p: paired permutation test, corrected (Benjamini-Hochberg) over all comparisons made together.
        n: documents.
        sentence: all of it, to be read by people.
        family: subject and other without the names of variants: claims of one family are summed up in one line.
        budget: the target that the subject aimed at, if any; its realised layer share where it missed that.
        kept: share of full that the subject keeps, and under the other condition: only where the two don't subtract.
        speakers: what speaks for the classes of subject and other, of a claim about classes.
    """

    task: str
    track: str
    condition: str
    subject: str
    other: str
    difference: Interval | None
    p: float | None
    n: int
    sentence: str
    family: tuple[str, str] = ("", "")
    budget: float | None = None
    kept: tuple[float, float] | None = None
    speakers: tuple[Speaker, Speaker] | None = None

    @property
    def verdict(self) -> int:
        """1 where subject is better, −1 where other is, 0 where that can't be said."""
        return 0 if self.difference is None or self.p is None else verdict(self.difference, self.p)


@dataclass(frozen=True, slots=True)
class _Question:
    track: Track
    condition: str
    subject: str
    other: str
    family: tuple[str, str]
    a: ScoredEntry
    others: tuple[ScoredEntry, ...]  # one row, or the variants of a control
    speakers: tuple[Speaker, Speaker] | None = None


def claims(tracks: Iterable[Track], scores: Scores, sources: Sources = NO_SOURCES) -> list[Claim]:
    """Make the comparisons that every board of this suite makes, as far as the records allow.

    Skipping against exiting, the router against its learned constant; `CREDITED` methods against random routing and
    unified skipping at their own realised share, in every variant there is (`dlbench.leaderboard.analysis.against`),
    and against a smaller dense model of about the same total FLOPs; the oracle against the same choice among full-depth
    outputs and under other references. A row that missed its budget is compared at what it ran at, never as one of that
    budget.

    Args:
        tracks: of one board, since p values are corrected over all comparisons made together.
        scores: record key → document id → primary score; records without any are not compared.
        sources: track → document id → source, of documents that have one.
    """
    compared = list(tracks)
    questions = [
        question
        for track in compared
        for question in _questions(track, scored_entries(track, scores, sources, unreachable=True))
        if question.a.ids and all(other.ids for other in question.others)
    ]
    answers = [against(question.a, question.others, clusters=question.a.clusters) for question in questions]
    adjusted = iter(corrected([answer[1] for answer in answers if answer is not None]))
    made = []
    for question, answer in zip(questions, answers, strict=True):
        if answer is None:
            made.append(_claim(question, None, None, 0))
        else:
            made.append(_claim(question, answer[0], float(next(adjusted)), len(question.a.ids)))
    made += [crossed for track in compared for crossed in _crossed(track)]
    return sorted(made, key=lambda claim: (claim.task, claim.track))


CREDITED = ("static_skip", "static_exit", "hidden_router")
"""Methods that claims are made of; a row of them that is a control is never one of these."""


def _questions(track: Track, known: Sequence[ScoredEntry]) -> Iterator[_Question]:
    by_method: dict[str, list[ScoredEntry]] = defaultdict(list)
    for entry in known:
        name = entry.row.record.method.name
        if entry.row.role == "dense":
            by_method["dense"].append(entry)
        elif name == "hidden_router" and entry.row.record.method.params.get("fixed_input") is True:
            by_method["constant"].append(entry)
        elif name not in CREDITED or not entry.row.control:
            by_method[name].append(entry)

    def question(condition: str, a: ScoredEntry, other: str, *b: ScoredEntry, family: str = "") -> _Question:
        name = a.row.record.method.name
        subject, word = ("the oracle", "the oracle") if name == "oracle" else (a.row.label, name)
        return _Question(track, condition, subject, other, (word, family or other), a, b)

    skip, leave, router = (by_method[name] for name in ("static_skip", "static_exit", "hidden_router"))
    spoken_for = list(_between_classes(track, known))
    yield from spoken_for
    places = {one.a.where[:3] for one in spoken_for}
    for a, b in _same_budget(skip, leave):
        if a.where[:3] not in places:
            yield question(_at(a, b), a, b.row.label, b, family="static_exit")
    for dense in by_method["dense"]:
        for several in (skip, leave, router):
            if several:
                a = min(several, key=lambda entry: abs(entry.total - dense.total))
                condition = f"At {percent(a.total)} of the FLOPs against {percent(dense.total)}"
                yield question(condition, a, f"the smaller dense {dense.row.label}", dense)
    for a, b in _same_budget(router, by_method["constant"]):
        yield question(_at(a, b), a, "its learned constant", b)
    for control in ("random_skip", "unified_skip"):
        for several in (skip, router):
            for a in several:
                if met := matched(a, by_method[control]):
                    yield question(_at(a), a, control, *met)
    for raw in by_method["oracle"]:
        same = [
            entry
            for entry in by_method["oracle@full"]
            if entry.where[0] in (raw.where[0], 1.0, None) and entry.where[1:] == raw.where[1:]
        ]
        for b in same[:1]:
            yield question(_at(raw), raw, "the same choice among full-depth outputs", b)


def _between_classes(track: Track, known: Sequence[ScoredEntry]) -> Iterator[_Question]:
    """Ask for skipping against exiting at every budget at which it is known what speaks for each."""
    places: dict[tuple[object, ...], dict[str, list[ScoredEntry]]] = defaultdict(lambda: defaultdict(list))
    for entry in known:
        name = entry.row.record.method.name
        of_class = class_of(name)
        credited = name in CONTROLS or not entry.row.control
        if of_class and credited and entry.ok and entry.row.role == "method" and entry.where[0] is not None:
            places[entry.where[:3]][of_class].append(entry)
    for members in places.values():
        first, second = (speaker(members[one]) for one in ("skipping", "exiting"))
        if first is None or second is None or not comparable(first.entry, second.entry):
            continue
        a, b = first.entry, second.entry
        if first.documents or second.documents:
            words = f"skipping ({a.row.label})", f"exiting ({b.row.label})"
            yield _Question(track, _at(a, b), *words, ("skipping", "exiting"), a, (b,), (first, second))
        else:
            names = a.row.label, b.row.label
            yield _Question(track, _at(a, b), *names, (a.row.record.method.name, b.row.record.method.name), a, (b,))


def _same_budget(
    first: Iterable[ScoredEntry], second: Iterable[ScoredEntry]
) -> Iterator[tuple[ScoredEntry, ScoredEntry]]:
    there = {entry.where: entry for entry in second if entry.ok}
    for entry in first:
        if entry.ok and entry.where in there:
            yield entry, there[entry.where]


def _at(*known: ScoredEntry) -> str:
    shares = [entry.layers for entry in known]
    if max(shares) - min(shares) < 0.005:
        return f"At {percent(sum(shares) / len(shares))} of the layers"
    return f"At {percent(shares[0])} of the layers against {percent(shares[1])}"


def _claim(question: _Question, difference: Interval | None, p: float | None, n: int) -> Claim:
    draft = Claim(
        task=question.track.task.name,
        track=question.track.anchor,
        condition=question.condition,
        subject=question.subject,
        other=question.other,
        difference=difference,
        p=p,
        n=n,
        sentence="",
        family=question.family,
        budget=question.a.row.record.run.budget if question.a.ok else round(question.a.layers, 3),
        speakers=question.speakers,
    )
    said = _say(draft)
    if question.speakers is not None:
        first, second = question.speakers
        said += f" Skipping is {first.chosen}; exiting is {second.chosen}."
    return replace(draft, sentence=said)


def _crossed(track: Track) -> Iterator[Claim]:
    """Say what the oracle keeps under references that it did not choose by.

    The two scores rest on different references, so no difference is taken; the shares of full depth are comparable.
    """
    known = [ScoredEntry((row,), (), None) for row in track.oracles if row.ok and row.record.compute]
    raws, crosses = (
        [entry for entry in known if entry.row.record.method.name == name] for name in ("oracle", "oracle_cross")
    )
    for raw, cross in _same_budget(raws, crosses):
        before, after = raw.row.record.quality, cross.row.record.quality
        if before is None or after is None or before.retained is None or after.retained is None:
            continue
        bounds = (
            "" if after.retained_ci95 is None else " [{:.0f}, {:.0f}]".format(*(100 * x for x in after.retained_ci95))
        )
        condition = _at(raw, cross)
        kept, left = f"{100 * before.retained:.0f} %", f"{100 * after.retained:.0f} %"
        yield Claim(
            task=track.task.name,
            track=track.anchor,
            condition=condition,
            subject="the oracle",
            other="itself under other references",
            difference=None,
            p=None,
            n=track.task.n,
            sentence=f"{condition}, the oracle keeps {kept} of full; scored on references it did not choose by, "
            f"{left}{bounds} on {track.task.name}.",
            family=("the oracle", "itself under other references"),
            budget=raw.row.record.run.budget,
            kept=(before.retained, after.retained),
        )


def _say(claim: Claim) -> str:
    subject, other, where = claim.subject, claim.other, f"on {claim.task}"
    difference = claim.difference
    if difference is None:
        return f"{claim.condition}, {subject} and {other} were not scored on the same documents {where}: no comparison."
    low, high = difference.low, difference.high
    digits = decimals([low, high])
    if not difference.excludes_zero:
        span = f"{difference.estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]".replace("-", "−")
        return f"{claim.condition}, {subject} and {other} cannot be told apart {where}: {span}."
    if difference.estimate < 0:
        low, high = -high, -low
    span = f"{abs(difference.estimate):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    if claim.verdict == 0:
        word = "leads" if difference.estimate > 0 else "trails"
        return (
            f"{claim.condition}, {subject} {word} {other} by {span} {where}; "
            "among this many comparisons that may be chance."
        )
    verb = "beats" if claim.verdict > 0 else "loses to"
    return f"{claim.condition}, {subject} {verb} {other} by {span} {where}."
