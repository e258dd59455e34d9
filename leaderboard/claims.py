"""What the numbers say, in sentences: paired comparisons with intervals, stated as they come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from scipy.stats import false_discovery_control

from dlbench.leaderboard.figures import decimals, percent
from dlbench.leaderboard.runs import Scores
from dlbench.leaderboard.tracks import Row, Track, build_tracks
from dlbench.records import Record
from dlbench.stats import Interval, paired_difference, permutation_p


@dataclass(frozen=True, slots=True)
class Claim:
    """One comparison.

    Attributes:
        task, track: where it was made.
        condition: at which cost, in words.
        subject, other: what was compared, in words.
        difference: mean score of subject minus other, paired by document; None where the documents differ.
        p: paired permutation test, corrected (Benjamini-Hochberg) over all comparisons made together.
        n: documents.
        sentence: all of it, to be read by people.
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

    @property
    def verdict(self) -> int:
        """1 where subject is better, −1 where other is, 0 where that can't be said."""
        if self.difference is None or self.p is None or self.p >= 0.05 or not self.difference.excludes_zero:
            return 0
        return 1 if self.difference.estimate > 0 else -1


@dataclass(frozen=True, slots=True)
class _Question:
    track: Track
    condition: str
    subject: str
    a: Row
    other: str
    b: Row


def claims(records: Iterable[Record], scores: Scores) -> list[Claim]:
    """Compare what every board of this suite is asked about, as far as the records allow.

    Skipping against exiting, the router against its learned constant, each of them against a smaller dense model of
    about the same total FLOPs, the oracle against the same choice among full-depth outputs and under other references.

    Args:
        records: any number of tracks.
        scores: record key → document id → primary score; records without any are not compared.
    """
    tracks = build_tracks(records)
    questions = [
        question
        for track in tracks
        for question in _questions(track)
        if question.a.record.key in scores and question.b.record.key in scores
    ]
    answers = [_compare(question, scores) for question in questions]
    tested = [answer[1] for answer in answers if answer is not None]
    corrected = iter(false_discovery_control(tested) if tested else ())
    made = []
    for question, answer in zip(questions, answers, strict=True):
        if answer is None:
            made.append(_claim(question, None, None, 0))
        else:
            made.append(_claim(question, answer[0], float(next(corrected)), answer[2]))
    made += [crossed for track in tracks for crossed in _crossed(track)]
    return sorted(made, key=lambda claim: (claim.task, claim.track))


def _questions(track: Track) -> Iterator[_Question]:
    rows = [row for row in track.rows if row.ok and row.record.compute]
    by_method = {
        name: [row for row in rows if row.record.method.name == name and row.role != "dense"] for name in _NAMES
    }
    skip, leave, routers = by_method["static_skip"], by_method["static_exit"], by_method["hidden_router"]
    constant = [row for row in routers if row.record.method.params.get("fixed_input") is True]
    router = [row for row in routers if row not in constant]
    for a, b in _same_budget(skip, leave):
        yield _Question(track, _at(a, b), _named("skipping", a), a, _named("exiting", b), b)
    for dense in (row for row in rows if row.role == "dense"):
        for subject, several in (("skipping", skip), ("exiting", leave), ("the router", router)):
            if several:
                a = min(several, key=lambda row: abs(_total(row) - _total(dense)))
                condition = f"At {percent(_total(a))} of the FLOPs against {percent(_total(dense))}"
                yield _Question(track, condition, _named(subject, a), a, f"the smaller dense {dense.label}", dense)
    for a, b in _same_budget(router, constant):
        yield _Question(track, _at(a, b), _named("the router", a), a, "its learned constant", b)
    for raw in by_method["oracle"]:
        same = [
            row
            for row in by_method["oracle@full"]
            if row.record.run.budget in (raw.record.run.budget, 1.0, None) and _where(row)[1:] == _where(raw)[1:]
        ]
        for b in same[:1]:
            yield _Question(
                track, _at(raw), _named("the oracle", raw), raw, "the same choice among full-depth outputs", b
            )


_NAMES = ("static_skip", "static_exit", "hidden_router", "oracle", "oracle@full")


def _same_budget(first: Iterable[Row], second: Iterable[Row]) -> Iterator[tuple[Row, Row]]:
    there = {_where(row): row for row in second}
    for row in first:
        if _where(row) in there:
            yield row, there[_where(row)]


def _where(row: Row) -> tuple[float | None, str, str, str]:
    """Return what two rows must share to be compared at one budget."""
    record = row.record
    return record.run.budget, record.backbone.sha256, record.backbone.dtype, record.run.kv


def _layers(row: Row) -> float:
    return row.record.compute.layer_share if row.record.compute else 0.0


def _total(row: Row) -> float:
    return row.record.compute.flop_share_total if row.record.compute else 0.0


def _at(*rows: Row) -> str:
    shares = [_layers(row) for row in rows]
    if max(shares) - min(shares) < 0.005:
        return f"At {percent(sum(shares) / len(shares))} of the layers"
    return f"At {percent(shares[0])} of the layers against {percent(shares[1])}"


def _named(word: str, row: Row) -> str:
    """Return the word, with the row's label where that says more than the method's name."""
    return word if row.label == row.record.method.name else f"{word} ({row.label})"


def _compare(question: _Question, scores: Scores) -> tuple[Interval, float, int] | None:
    a, b = scores[question.a.record.key], scores[question.b.record.key]
    if not a or a.keys() != b.keys():
        return None
    ids = sorted(a)
    ours, theirs = [a[one] for one in ids], [b[one] for one in ids]
    return paired_difference(ours, theirs), permutation_p(ours, theirs), len(ids)


def _claim(question: _Question, difference: Interval | None, p: float | None, n: int) -> Claim:
    draft = Claim(
        task=question.track.task.name,
        track=question.track.name,
        condition=question.condition,
        subject=question.subject,
        other=question.other,
        difference=difference,
        p=p,
        n=n,
        sentence="",
    )
    return replace(draft, sentence=_say(draft))


def _crossed(track: Track) -> Iterator[Claim]:
    """State what is left of the oracle under references it did not choose by.

    The two scores rest on different references and don't subtract; what each keeps of full under its own compares.
    """
    rows = [row for row in track.oracles if row.ok]
    raws = [row for row in rows if row.record.method.name == "oracle"]
    for raw, cross in _same_budget(raws, [row for row in rows if row.record.method.name == "oracle_cross"]):
        before, after = raw.record.quality, cross.record.quality
        if before is None or after is None or before.retained is None or after.retained is None:
            continue
        bounds = (
            "" if after.retained_ci95 is None else " [{:.0f}, {:.0f}]".format(*(100 * x for x in after.retained_ci95))
        )
        condition = _at(raw, cross)
        kept, left = f"{100 * before.retained:.0f} %", f"{100 * after.retained:.0f} %"
        yield Claim(
            task=track.task.name,
            track=track.name,
            condition=condition,
            subject="the oracle",
            other="itself under other references",
            difference=None,
            p=None,
            n=track.task.n,
            sentence=f"{condition}, the oracle keeps {kept} of full; scored on references it did not choose by, "
            f"{left}{bounds} on {track.task.name}.",
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
