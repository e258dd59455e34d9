import numpy as np
import pytest
from scipy import stats as scipy_stats

from dlbench.stats import Interval, mean_interval, paired_difference, permutation_p, retained


def pairs(n=200, effect=0.05, seed=0):
    rng = np.random.default_rng(seed)
    full = rng.beta(4, 2, n)
    return full - effect + rng.normal(0, 0.1, n), full


def test_intervals_agree_with_scipy():
    a, b = pairs()
    ours = paired_difference(a, b)
    theirs = scipy_stats.bootstrap(
        (a - b,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.estimate == pytest.approx((a - b).mean())
    assert ours.low == pytest.approx(theirs.low, abs=1e-3)
    assert ours.high == pytest.approx(theirs.high, abs=1e-3)
    mean = mean_interval(a)
    assert mean.estimate == pytest.approx(a.mean())
    assert mean.low < mean.estimate < mean.high


def test_nominal_95_percent_covers_the_truth():
    hits = sum(
        interval.low <= -0.05 <= interval.high
        for interval in (paired_difference(*pairs(seed=seed), resamples=1000) for seed in range(300))
    )
    assert hits / 300 >= 0.92


def test_pairing_finds_what_an_unpaired_test_misses():
    a, b = pairs(effect=0.02)
    assert paired_difference(a, b).excludes_zero
    assert scipy_stats.ttest_ind(a, b).pvalue > 0.05


def test_same_seed_same_interval_whatever_else_ran():
    a, b = pairs(n=3000)
    first = paired_difference(a, b, resamples=2000)
    mean_interval(a, resamples=10)
    assert paired_difference(a, b, resamples=2000) == first
    assert paired_difference(a, b, resamples=2000, seed=1) != first


def test_retained_is_the_ratio_of_means():
    a, b = pairs()
    kept = retained(a, b)
    assert kept.estimate == pytest.approx(a.mean() / b.mean())
    assert kept.low < kept.estimate < kept.high
    assert retained(b, b) == Interval(1.0, 1.0, 1.0)


def test_retained_has_no_value_where_full_has_none():
    ones = np.ones(50)
    assert retained(ones, np.zeros(50)) is None
    one_hit = np.r_[1.0, np.zeros(49)]
    assert retained(ones, one_hit) is None  # a third of the resamples miss the only hit
    assert retained(ones * 0.4, ones * 0.4, chance=0.5) is None
    assert retained(ones * 0.7, ones * 0.9, chance=0.5).estimate == pytest.approx(0.5)


def test_permutation_p_is_exact_for_few_documents():
    a, b = pairs(n=10)
    exact = scipy_stats.permutation_test(
        (a, b), lambda x, y, axis: (x - y).mean(axis=axis), permutation_type="samples", vectorized=True
    ).pvalue
    assert permutation_p(a, b) == pytest.approx(exact)


def test_permutation_p_of_many_documents():
    a, b = pairs(effect=0.0, seed=3)
    p = permutation_p(a, b)
    assert p == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue, abs=0.03)
    assert permutation_p(b - 1, b) == 1 / 10_001
    assert permutation_p(b, b) == 1.0


def test_permutation_counts_ties_of_rounding_as_ties():
    assert permutation_p([0.1, 0.2, 0.3], [0, 0, 0]) == 0.25
    assert permutation_p([0.3, 0.2, 0.1], [0, 0, 0]) == 0.25


@pytest.mark.parametrize("bad", [([], []), ([1.0], [1.0, 2.0]), ([np.nan], [1.0]), ([[1.0]], [[1.0]])])
@pytest.mark.parametrize("function", [paired_difference, retained, permutation_p])
def test_refuses_scores_that_do_not_pair(function, bad):
    with pytest.raises(ValueError, match="scores"):
        function(*bad)
