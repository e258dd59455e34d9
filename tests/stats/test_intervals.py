import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from dlbench.stats import (
    Interval,
    Resample,
    contrast,
    mean_interval,
    paired_difference,
    permutation_p,
    ratio_interval,
    retained,
    score,
)

Z2 = scipy_stats.norm.ppf(0.975) ** 2
some_scores = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=1, max_size=40
)


def pairs(n=200, effect=0.05, seed=0):
    rng = np.random.default_rng(seed)
    full = rng.beta(4, 2, n)
    return (full - effect + rng.normal(0, 0.1, n)).clip(0, 1), full


def binary(won, lost, tied):
    return np.r_[np.ones(won), np.zeros(lost), np.ones(tied)], np.r_[np.zeros(won), np.ones(lost), np.ones(tied)]


def tango(won, lost, n):
    """Tango's interval, by his closed form of the restricted estimate and plain bisection."""

    def outside(delta):
        a, b, c = 2 * n, -won - lost + (2 * n - won + lost) * delta, -lost * delta * (1 - delta)
        restricted = (np.sqrt(b * b - 4 * a * c) - b) / (2 * a)
        variance = n * (2 * restricted + delta * (1 - delta))
        return (won - lost - n * delta) ** 2 > Z2 * variance

    ends = []
    for limit in (-1.0, 1.0):
        inner = (won - lost) / n
        for _ in range(60):
            middle = (inner + limit) / 2
            inner, limit = (inner, middle) if outside(middle) else (middle, limit)
        ends.append(inner)
    return tuple(ends)


@pytest.mark.parametrize("counts", [(9, 3, 188), (0, 4, 196), (12, 9, 23), (1, 0, 31), (60, 20, 120)])
def test_binary_difference_is_tangos(counts):
    found = paired_difference(*binary(*counts))
    assert found.method == "Tango score"
    assert (found.low, found.high) == pytest.approx(tango(*counts[:2], sum(counts)), abs=1e-9)


def test_ties_throughout_still_leave_doubt():
    found = paired_difference(*binary(0, 0, 200))
    assert (found.low, found.estimate, found.high) == pytest.approx((-Z2 / (200 + Z2), 0, Z2 / (200 + Z2)), abs=1e-9)
    many = np.ones(1_000_000)
    assert paired_difference(many, many).high == pytest.approx(Z2 / 1e6, rel=1e-4)


@pytest.mark.parametrize(("hits", "n"), [(5, 10), (0, 7), (200, 200), (3, 150)])
def test_binary_mean_is_wilsons(hits, n):
    found = mean_interval(np.r_[np.ones(hits), np.zeros(n - hits)])
    theirs = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert found.method == "Wilson score"
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_scores_of_a_hundred_give_a_hundred_times_the_interval():
    a, b = pairs(n=60)
    a, b = a.clip(0, 1), b.clip(0, 1)
    one, hundred = paired_difference(a, b), paired_difference(100 * a, 100 * b)
    assert (hundred.low, hundred.high) == pytest.approx((100 * one.low, 100 * one.high), rel=1e-6)
    right = binary(9, 3, 188)
    assert paired_difference(*(100 * x for x in right)).high == pytest.approx(100 * paired_difference(*right).high)


def test_many_differing_documents_are_bootstrapped_as_scipy_does():
    a, b = pairs(n=400)
    found = paired_difference(a, b)
    theirs = scipy_stats.bootstrap(
        (a - b,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.method == "bootstrap BCa"
    assert found.estimate == pytest.approx((a - b).mean())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)


def test_score_interval_of_ordinary_data_is_about_students():
    a, b = np.random.default_rng(0).random((2, 60))
    found = paired_difference(a, b)
    theirs = scipy_stats.ttest_rel(a, b).confidence_interval()
    assert found.method == "empirical-likelihood score"
    assert found.high - found.low == pytest.approx(theirs.high - theirs.low, rel=0.12)


@settings(max_examples=60, deadline=None)
@given(some_scores)
def test_bounds_hold_their_estimate_and_swap_with_the_rows(scores):
    a, b = np.array(scores).T
    found, swapped = paired_difference(a, b, resamples=200), paired_difference(b, a, resamples=200)
    assert -1 <= found.low <= found.estimate <= found.high <= 1
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=1e-7)


@settings(max_examples=40, deadline=None)
@given(some_scores, st.randoms(use_true_random=False))
def test_order_of_documents_does_not_matter_to_score_intervals(scores, random):
    mixed = random.sample(scores, len(scores))
    before, after = (paired_difference(*np.array(one).T) for one in (scores, mixed))
    assert (before.low, before.high) == pytest.approx((after.low, after.high), abs=1e-9)


def test_same_seed_same_interval_whatever_else_ran():
    a, b = pairs(n=3000)
    first = paired_difference(a, b, resamples=2000)
    mean_interval(a, resamples=10)
    assert paired_difference(a, b, resamples=2000) == first
    assert paired_difference(a, b, resamples=2000, seed=1) != first


def test_pairing_finds_what_an_unpaired_test_misses():
    a, b = pairs(effect=0.02)
    assert paired_difference(a, b).excludes_zero
    assert permutation_p(a, b) < 0.05
    assert scipy_stats.ttest_ind(a, b).pvalue > 0.05


def test_contrast_is_the_weighted_sum():
    a, b = pairs(n=300)
    found = contrast([a, b], [1, -0.95])
    assert found.estimate == pytest.approx(a.mean() - 0.95 * b.mean())
    alone = mean_interval(a - 0.95 * b, bounds=(-1, 1))
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_documents_of_one_source_count_as_one():
    rng = np.random.default_rng(0)
    sources, each = 120, 5
    a = np.repeat(rng.random(sources), each)
    b = np.full(a.size, 0.55)
    clusters = np.repeat(np.arange(sources), each).tolist()
    alone, together = paired_difference(a, b), paired_difference(a, b, clusters=clusters)
    assert together.high - together.low == pytest.approx(5**0.5 * (alone.high - alone.low), rel=0.05)
    assert permutation_p(a[:60], b[:60] + 0.04, clusters=clusters[:60]) > permutation_p(a[:60], b[:60] + 0.04)
    lone = [f"source {place}" for place in range(a.size)]
    assert paired_difference(a, b, clusters=lone) == alone


def test_few_clusters_of_binary_scores_are_wider_too():
    a, b = binary(20, 5, 75)
    order = np.random.default_rng(0).permutation(100)
    alike = paired_difference(a, b, clusters=(np.arange(100) // 5).tolist())
    mixed = paired_difference(a[order], b[order], clusters=(np.arange(100) // 5).tolist())
    alone = paired_difference(a, b)
    assert alike.high - alike.low > 1.5 * (alone.high - alone.low)
    assert mixed.high - mixed.low < alike.high - alike.low
    assert alike.estimate == pytest.approx(alone.estimate)


def test_fit_seeds_widen_by_students_t():
    rng = np.random.default_rng(0)
    seeds = rng.normal(0.6, 0.1, 300) + np.array([[-0.03], [0.0], [0.03]])
    other = np.full(300, 0.5)
    found, alone = paired_difference(seeds, other), paired_difference(seeds.mean(axis=0), other)
    reach = scipy_stats.t.ppf(0.975, 2) * 0.03 / 3**0.5
    assert found.high - found.estimate == pytest.approx(np.hypot(alone.high - alone.estimate, reach))
    assert found.method == "bootstrap BCa, 3 fit seeds"
    assert paired_difference(seeds[:1], other) == paired_difference(seeds[0], other)


def test_retained_is_the_ratio_of_means():
    a, b = pairs()
    kept = retained(a, b)
    assert kept.estimate == pytest.approx(a.mean() / b.mean())
    theirs = scipy_stats.bootstrap(
        (a, b),
        lambda x, y, axis: x.mean(axis=axis) / y.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=10_000,
        method="BCa",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (kept.low, kept.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    assert retained(b, b, same=True) == Interval(1.0, 1.0, 1.0)
    alike = retained(b, b)
    assert alike.low < alike.estimate == 1.0 < alike.high


def test_ratio_that_is_known_to_be_constant_below_is_the_mean():
    scores = np.random.default_rng(0).random(50)
    ratio, mean = ratio_interval(scores, np.full(50, 2.0), bounds=((0, 1), (2, 2))), mean_interval(scores)
    assert ratio.estimate == pytest.approx(mean.estimate / 2)
    assert (ratio.low, ratio.high) == pytest.approx((mean.low / 2, mean.high / 2))


def test_retained_has_no_value_where_full_has_none():
    ones = np.ones(50)
    assert retained(ones, np.zeros(50)) is None
    one_hit = np.r_[1.0, np.zeros(49)]
    assert retained(ones, one_hit) is None  # a third of the resamples miss the only hit
    assert retained(ones * 0.4, ones * 0.4, chance=0.5) is None
    assert retained(ones * 0.7, ones * 0.9, chance=0.5).estimate == pytest.approx(0.5)


def test_resamples_are_shared_by_the_rows():
    a, b = pairs(n=50)
    resample = Resample(50, resamples=500, seed=3)
    both = resample.means([a, b, a])
    assert (both[0] == both[2]).all()
    assert both[1] == pytest.approx(resample.means(b)[0])
    assert Resample(50, resamples=500, seed=3).means(b) == pytest.approx(resample.means(b))
    assert (a.mean() - both[0].mean()) == pytest.approx(0, abs=4 * a.std() / 50**0.5 / 500**0.5)


def test_resampled_clusters_keep_their_documents_together():
    values = np.r_[np.zeros(4), np.ones(2)]
    means = Resample(6, clusters=["a"] * 4 + ["b"] * 2, resamples=400).means(values)[0]
    assert set(np.round(means, 12)) == {0.0, round(2 / 6, 12), 1.0}


@pytest.mark.parametrize("bad", [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([[[1.0]]], [[[1.0]]])])
@pytest.mark.parametrize("function", [paired_difference, retained, permutation_p, ratio_interval])
def test_refuses_scores_that_do_not_pair(function, bad):
    with pytest.raises(ValueError, match="scores"):
        function(*bad)


def test_refuses_clusters_that_do_not_fit():
    with pytest.raises(ValueError, match="3 clusters"):
        paired_difference([1.0, 0.0], [0.0, 0.0], clusters=["a", "b", "c"])


def test_the_search_for_the_ends_takes_few_steps(monkeypatch):
    a = np.random.default_rng(0).normal(0.2, 1, (25, 200))
    low, high = a.min(axis=0) - 1, a.max(axis=0) + 1
    units = np.full(200, 25.0)

    def ends():
        return score.score_ends(a, np.ones_like(a), np.ones_like(a), units, lambda x: (low - x, high - x), 0.95)

    settled = ends()
    monkeypatch.setattr(score, "_STEPS", 12)
    assert np.abs(np.subtract(ends(), settled)).max() < 1e-9
