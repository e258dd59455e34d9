"""A row against a control of several variants: no verdict by luck, and none that hangs on one variant alone."""

import numpy as np
import pytest
from record_factory import claims_of, record

from dlbench.leaderboard.analysis.against import against, verdict
from dlbench.leaderboard.data.paired_scores import ScoredEntry, matched, scored_entries, usual
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.stats import paired_difference, permutation_p

N = 60
IDS = tuple(str(place) for place in range(N))
BASE = np.clip(np.random.default_rng(0).normal(0.6, 0.1, N), 0, 1)


def entry(scores):
    return ScoredEntry((), IDS, np.atleast_2d(scores))


def told(rng, leads, runs=150):
    """Return the verdicts on a row that truly lies so far ahead of each of its control's variants."""
    found = []
    for _ in range(runs):
        mine, *theirs = 0.6 - np.r_[0.0, leads][:, None] + rng.normal(0, 0.25, (1 + len(leads), N))
        found.append(verdict(*against(entry(mine), [entry(one) for one in theirs])))
    return np.array(found)


@pytest.mark.parametrize("leads", [(0.0, 0.0), (0.0, 0.0, 0.0, 0.0), (0.3, 0.0), (-0.3, 0.0)])
def test_equal_to_one_variant_is_seldom_ahead_or_behind(leads):
    verdicts = told(np.random.default_rng([1, len(leads)]), leads)
    wrong = verdicts != 0 if set(leads) == {0.0} else verdicts == np.sign(sum(leads))
    assert np.mean(wrong) <= 0.05
    # On either side alone at most 2.5 %, whichever of them would be the false claim.
    assert np.mean(verdicts == 1) <= 0.04 and np.mean(verdicts == -1) <= 0.04


def test_against_the_one_that_came_out_stronger_a_row_would_lose_by_luck():
    rng = np.random.default_rng(2)
    lost = []
    for _ in range(300):
        mine, *theirs = rng.normal(0.6, 0.25, (5, N))
        strongest = max(theirs, key=lambda one: one.mean())
        lost.append(permutation_p(mine, strongest, resamples=999) < 0.05 and mine.mean() < strongest.mean())
    assert np.mean(lost) > 0.05  # at a level of 2.5 %


def test_ahead_of_all_is_found():
    assert np.mean(told(np.random.default_rng(3), (0.2, 0.2), 100) == 1) > 0.9
    assert np.mean(told(np.random.default_rng(4), (-0.2, -0.25, -0.3), 100) == -1) > 0.9


def test_what_is_shown_is_the_least_favourable():
    rng = np.random.default_rng(5)
    mine = BASE + 0.2 + rng.normal(0, 0.05, N)
    near, far = (entry(BASE + lead) for lead in (0.1, 0.0))
    difference, p = against(entry(mine), [far, near])
    assert difference == paired_difference(mine, near.scores)
    assert p == max(permutation_p(mine, one.scores) for one in (far, near))
    difference, _ = against(entry(BASE - 0.2), [far, near])
    assert difference == paired_difference(BASE - 0.2, far.scores)


def test_ahead_of_one_and_behind_another_is_no_verdict():
    above, below = entry(BASE + 0.2), entry(BASE - 0.2)
    difference, p = against(entry(BASE), [above, below])
    one, other = (paired_difference(BASE, two.scores) for two in (above, below))
    assert (p, verdict(difference, p)) == (1.0, 0)
    assert (difference.low, difference.high) == (one.low, other.high)
    assert difference.low < 0 < difference.high


def test_one_other_is_compared_as_ever():
    mine, other = entry(BASE + 0.1), entry(BASE)
    assert against(mine, [other]) == (
        paired_difference(mine.scores, other.scores),
        permutation_p(mine.scores, other.scores),
    )
    assert against(mine, []) is None
    assert against(mine, [ScoredEntry((), IDS[1:], other.scores[:, 1:])]) is None
    assert against(mine, [ScoredEntry((), IDS, None)]) is None


def test_sources_are_taken_together():
    clusters = np.repeat(np.arange(N // 4), 4).tolist()
    mine, others = entry(BASE + np.repeat(np.random.default_rng(6).normal(0.1, 0.1, N // 4), 4)), [entry(BASE)]
    assert against(mine, others, clusters=clusters)[0] == paired_difference(mine.scores, BASE, clusters=clusters)
    assert against(mine, others, clusters=clusters)[0] != against(mine, others)[0]


def made(*rows):
    """Return records and scores of (name, parameters, scores) rows at half of the layers."""
    records = [record(name, scores=values, full=BASE, method={"params": params}) for name, params, values in rows]
    values = [values for *_, values in rows]
    return records, {
        one.key: dict(zip(IDS, map(float, row), strict=True)) for one, row in zip(records, values, strict=True)
    }


def test_claims_hold_against_every_variant():
    skip = ("static_skip", {}, BASE + 0.1)
    token, sequence = (("random_skip", {"per": per}, BASE + lead) for per, lead in (("token", -0.2), ("sequence", 0.3)))
    (claim,) = claims_of(*made(skip, token))
    assert (claim.verdict, claim.difference.estimate) == (1, pytest.approx(0.3))
    (claim,) = claims_of(*made(skip, token, sequence))
    assert claim.verdict == 0
    assert "static_skip and random_skip cannot be told apart" in claim.sentence
    (claim,) = claims_of(*made(skip, token, ("random_skip", {"per": "sequence"}, BASE - 0.1)))
    assert (claim.verdict, claim.difference.estimate) == (1, pytest.approx(0.2))


def test_no_variant_is_left_out_for_its_scores():
    records, scores = made(
        ("static_skip", {}, BASE),
        ("random_skip", {"per": "token"}, BASE - 0.2),
        ("random_skip", {"per": "sequence"}, BASE - 0.1),
    )
    known = scored_entries(build_tracks(records)[0], scores)
    mine = next(one for one in known if one.row.label == "static_skip")
    controls = [one for one in known if one is not mine]
    met = matched(mine, controls)
    assert [one.row.label for one in met] == [one.row.label for one in controls]
    assert [one.scores.mean() for one in met] == pytest.approx([one.scores.mean() for one in controls])


def test_one_that_has_to_stand_for_all_is_chosen_by_name():
    assert usual(["random_skip · sequence", "random_skip · token"]) == "random_skip · token"
    assert usual(["random_skip · b", "random_skip · a"]) == "random_skip · a"
    assert usual([]) is None
