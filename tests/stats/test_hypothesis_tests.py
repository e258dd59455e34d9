import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from dlbench.stats import Outcomes, corrected, minimum_detectable, outcomes, permutation_p, sign_test_p


def pairs(n=200, effect=0.05, seed=0):
    rng = np.random.default_rng(seed)
    full = rng.beta(4, 2, n)
    return full - effect + rng.normal(0, 0.1, n), full


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
    assert p == pytest.approx(
        scipy_stats.permutation_test(
            (a, b),
            lambda x, y, axis: (x - y).mean(axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=10_000,
            rng=np.random.default_rng(0),
        ).pvalue,
        abs=0.02,
    )
    assert permutation_p(b - 1 - np.linspace(0, 0.1, 200), b) == 1 / 10_001
    assert permutation_p(b, b) == 1.0


def test_permutation_counts_ties_of_rounding_as_ties():
    assert permutation_p([0.1, 0.2, 0.3], [0, 0, 0]) == 0.25
    assert permutation_p([0.3, 0.2, 0.1], [0, 0, 0]) == 0.25


@pytest.mark.parametrize(("won", "lost"), [(9, 3), (0, 4), (40, 20), (150, 0), (1, 1), (0, 0)])
def test_binary_scores_have_mcnemars_exact_test(won, lost):
    a, b = np.r_[np.ones(won), np.zeros(lost), np.ones(7)], np.r_[np.zeros(won), np.ones(lost), np.ones(7)]
    p = permutation_p(a, b)
    assert p == sign_test_p(won, lost)
    assert p == pytest.approx(scipy_stats.binomtest(won, won + lost).pvalue if won + lost else 1.0)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=12), st.randoms())
def test_permutation_p_knows_neither_order_nor_sign(differences, random):
    p = permutation_p(differences, np.zeros(len(differences)))
    mixed = random.sample(differences, len(differences))
    assert permutation_p(mixed, np.zeros(len(mixed))) == pytest.approx(p)
    assert permutation_p(np.zeros(len(mixed)), mixed) == pytest.approx(p)
    assert 0 < p <= 1


def test_sources_are_swapped_whole():
    clusters = ["a", "a", "b", "b", "c", "c"]
    a = [0.1, 0.3, 0.2, 0.1, 0.1, 0.15]
    assert permutation_p(a, np.zeros(6), clusters=clusters) == 2 / 2**3
    assert permutation_p(a, np.zeros(6)) == 2 / 2**6


def test_correction_is_benjamini_and_hochbergs():
    # By hand: 0.01·4/1, 0.02·4/2, 0.03·4/3 and 0.9; each no more than the next.
    assert corrected([0.9, 0.02, 0.01, 0.03]) == pytest.approx([0.9, 0.04, 0.04, 0.04])
    assert corrected([]).size == 0


def test_minimum_detectable_effect_is_found_four_times_in_five():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 0.1, (2, 100))
    least = minimum_detectable(a, b)
    assert least == pytest.approx((1.959964 + 0.841621) * (a - b).std(ddof=1) / 10, rel=1e-5)
    found = [scipy_stats.ttest_1samp(rng.normal(least, (a - b).std(), 100), 0).pvalue < 0.05 for _ in range(500)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)
    assert minimum_detectable(a, b, clusters=np.repeat(range(50), 2).tolist()) == pytest.approx(least, rel=0.3)


@pytest.mark.parametrize("scores", [([0.5], [0.4]), ([1.0, 0.5], [1.0, 0.5])])
def test_minimum_detectable_effect_of_no_spread_is_not_known(scores):
    assert minimum_detectable(*scores) is None


def test_outcomes_are_counted():
    assert outcomes([1.0, 0.5, 0.0, 0.2], [0.5, 0.5, 0.1, 0.1]) == Outcomes(won=2, lost=1, tied=1)
    assert outcomes([[1.0, 0.0], [0.0, 0.0]], [0.5, 0.1]) == Outcomes(won=0, lost=1, tied=1)
