import numpy as np
import pytest

from dlbench.stats import Rank, Table, letters, paired_difference, permutation_p, rank_intervals, tie_groups

RNG = np.random.default_rng(0)
BASE = RNG.beta(4, 2, 150)
BINARY = [(RNG.random(150) < share).astype(float) for share in (0.9, 0.85, 0.5)]
ROWS = {
    "real": [np.clip(BASE + shift + RNG.normal(0, 0.1, 150), 0, 1) for shift in (0.0, 0.02, -0.1)],
    "sparse": [np.where(RNG.random(150) < 0.05, RNG.random(150), BASE) for _ in range(3)],
    "few": [np.where(np.arange(150) < place, 0.1 * RNG.random(150), BASE) for place in (0, 4, 9)],
    "binary": BINARY,
    "mixed": [BINARY[0], BASE, BASE],
}


@pytest.mark.parametrize("clusters", [None, (np.arange(150) // 3).tolist()], ids=["alone", "clustered"])
@pytest.mark.parametrize("kind", ROWS)
def test_pairs_are_those_of_two_rows_alone(kind, clusters):
    rows = ROWS[kind]
    pairs = Table(rows, clusters=clusters, bounds=(0, 1)).pairs
    for i in range(3):
        for j in range(3):
            if i == j:
                assert (pairs.estimate[i, i], pairs.p[i, i], pairs.different[i, i]) == (0, 1, False)
                continue
            alone = paired_difference(rows[i], rows[j], clusters=clusters, bounds=(0, 1))
            assert pairs.estimate[i, j] == pytest.approx(alone.estimate)
            assert (pairs.low[i, j], pairs.high[i, j]) == pytest.approx((alone.low, alone.high), abs=1e-6)
            assert pairs.p[i, j] == pytest.approx(permutation_p(rows[i], rows[j], clusters=clusters), abs=1e-12)
            assert pairs.won[i, j] == (rows[i] > rows[j]).sum()
    assert (pairs.corrected >= pairs.p).all()


def test_pairs_of_fit_seeds_are_wider_and_less_sure():
    seeds = ROWS["real"][2] + np.array([[-0.1], [0.0], [0.1]])
    table = Table([seeds, ROWS["real"][0]])
    alone = paired_difference(seeds, ROWS["real"][0])
    assert table.pairs.estimate[0, 1] == pytest.approx(alone.estimate)
    assert table.pairs.low[0, 1] == pytest.approx(alone.low)
    assert alone.low < 0 < alone.high
    assert not table.pairs.different[0, 1]
    assert table.pairs.p[0, 1] > 0.05
    assert Table([seeds.mean(axis=0), ROWS["real"][0]]).pairs.different[0, 1]
    assert table.ranks == [Rank(2, 1, 2), Rank(1, 1, 2)]


def test_ranks_of_rows_far_apart_are_certain():
    noise = np.random.default_rng(1).normal(0, 0.05, (4, 100))
    table = Table(list(0.2 * np.arange(4)[:, None] + noise))
    assert table.ranks == [Rank(4, 4, 4), Rank(3, 3, 3), Rank(2, 2, 2), Rank(1, 1, 1)]
    assert table.groups == [(3,), (2,), (1,), (0,)]


def test_rows_that_are_equal_share_a_rank_and_a_group():
    low = np.clip(BASE - 0.3, 0, 1)
    table = Table([BASE, BASE, low])
    assert table.ranks == [Rank(1, 1, 2), Rank(1, 1, 2), Rank(3, 3, 3)]
    assert letters(table.groups, 3) == ["a", "a", "b"]


def test_rank_intervals_hold_the_true_ranks():
    rng = np.random.default_rng(2)
    truth = np.array([0.0, 0.0, 0.0, 0.05, 0.1])
    held = 0
    for _ in range(200):
        ranks = Table(list(truth[:, None] + rng.normal(0, 0.1, (5, 60))), resamples=500).ranks
        # Rows of equal truth may stand at any of their places.
        held += all(ranks[i].low <= 3 and ranks[i].high == 5 for i in range(3))
        held += ranks[4].low == 1 <= ranks[4].high
    assert held / 400 >= 0.95


def test_one_row_is_first():
    table = Table([BASE])
    assert table.ranks == [Rank(1, 1, 1)]
    assert table.groups == [(0,)]


def test_rank_interval_by_hand():
    # Rows 1 and 2 lie 1 apart and 3 below row 0; every difference of draws deviates by −1 or 1.
    draws = np.array([[6.5, 5.5, 6.5, 5.5], [2.5, 3.5, 2.5, 3.5], [1.5, 2.5, 1.5, 2.5]])
    assert rank_intervals([6.0, 3.0, 2.0], draws) == [Rank(1, 1, 1), Rank(2, 2, 2), Rank(3, 3, 3)]
    # Rows 1 and 2 move as one, so their order is certain; a fourth that moves against them is not.
    draws = np.vstack([draws, [2.2 + 1, 2.2 - 1, 2.2 + 1, 2.2 - 1]])
    assert rank_intervals([6.0, 3.0, 2.0, 2.2], draws)[3] == Rank(3, 2, 4)


def test_groups_where_not_different_is_not_transitive():
    different = np.zeros((3, 3), dtype=bool)
    different[0, 2] = different[2, 0] = True
    groups = tie_groups([0.9, 0.8, 0.7], different)
    assert groups == [(0, 1), (1, 2)]
    assert letters(groups, 3) == ["a", "ab", "b"]


@pytest.mark.parametrize("seed", range(20))
def test_groups_say_exactly_what_the_tests_said(seed):
    rng = np.random.default_rng(seed)
    means = rng.random(14)
    different = np.triu(rng.random((14, 14)) < rng.choice([0.1, 0.5, 0.9]), 1)
    different |= different.T
    groups = tie_groups(means, different)
    marks = letters(groups, 14)
    for i in range(14):
        for j in range(14):
            together = any(i in group and j in group for group in groups)
            assert together == (i == j or not different[i, j])
    assert all(marks) and len(groups) == len(set(groups))
    assert groups[0][0] == means.argmax()


def test_letters_go_on_after_z():
    different = ~np.eye(30, dtype=bool)
    marks = letters(tie_groups(-np.arange(30), different), 30)
    assert (marks[0], marks[25], marks[26], marks[29]) == ("a", "z", "a'", "d'")


@pytest.mark.parametrize("rows", [[], [[1.0], [1.0, 2.0]], [[np.inf]]])
def test_refuses_rows_that_do_not_pair(rows):
    with pytest.raises(ValueError, match="scores"):
        Table(rows)
