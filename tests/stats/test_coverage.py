"""Simulations with known truth: intervals cover, false discoveries stay rare, paired tests have power."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from dlbench.stats import Resample, Table, paired_difference, permutation_p, retained
from dlbench.stats.bounds import Samples, mean_bounds
from dlbench.stats.score import score_ends

RUNS = 1000
PROMISE = 0.93


@pytest.mark.parametrize("n", [32, 200, 500])
@pytest.mark.parametrize("discordant", [0.01, 0.02, 0.05, 0.2])
@pytest.mark.parametrize("won", [0.5, 0.7, 0.9, 1.0])
def test_binary_differences_are_covered(n, discordant, won):
    """Exact: the sum over all outcomes that have a chance, not a simulation."""
    most = int(scipy_stats.binom.ppf(1 - 1e-6, n, discordant)) + 1
    wins, losses = (one.ravel() for one in np.meshgrid(np.arange(most + 1), np.arange(most + 1)))
    possible = wins + losses <= min(n, most)
    wins, losses = wins[possible], losses[possible]
    values = np.array([[-1.0], [0.0], [1.0]]) * np.ones(wins.size)
    counts = np.stack([losses, n - wins - losses, wins]).astype(float)
    low, high = score_ends(
        values, np.ones_like(values), counts, np.full(wins.size, float(n)), lambda x: (-1 - x, 1 - x), 0.95
    )
    chances = scipy_stats.multinomial.pmf(counts.T, n, [discordant * (1 - won), 1 - discordant, discordant * won])
    truth = discordant * (2 * won - 1)
    assert chances[(low <= truth) & (truth <= high)].sum() >= PROMISE


def sparse(rng, n, discordant, size, won=1.0):
    there = rng.random((RUNS, n)) < discordant
    return there * np.where(rng.random((RUNS, n)) < won, 1, -1) * size(rng, (RUNS, n))


def uniform(rng, shape):
    return rng.random(shape)


def small(rng, shape):
    return rng.beta(2, 18, shape)


CASES = {
    "2 % differ, one way": (200, lambda rng: sparse(rng, 200, 0.02, uniform), 0.01),
    "2 % differ, both ways": (200, lambda rng: sparse(rng, 200, 0.02, uniform, 0.7), 0.004),
    "2 % differ by little": (200, lambda rng: sparse(rng, 200, 0.02, small, 0.7), 0.0008),
    "2 % differ, few documents": (32, lambda rng: sparse(rng, 32, 0.02, uniform), 0.01),
    "80 % tie": (200, lambda rng: sparse(rng, 200, 0.2, uniform, 0.7), 0.04),
    "half of many tie": (600, lambda rng: sparse(rng, 600, 0.5, small, 0.7), 0.02),
    "all differ, few documents": (32, lambda rng: rng.normal(0.05, 0.1, (RUNS, 32)), 0.05),
    "all differ": (200, lambda rng: rng.normal(0.05, 0.1, (RUNS, 200)), 0.05),
    "skewed": (200, lambda rng: rng.exponential(0.1, (RUNS, 200)) - 0.05, 0.05),
}


def covered(values, truth, n, clusters=None):
    resample = Resample(n, clusters=clusters, resamples=2000)
    samples = Samples(
        values=values,
        low=np.full(RUNS, -1.0),
        high=np.ones(RUNS),
        binary=np.zeros(RUNS, dtype=bool),
        codes=resample.codes,
    )
    low, high, _ = mean_bounds(samples, lambda some: resample.means(values[some]), 0.95)
    return ((low <= truth) & (truth <= high)).mean()


@pytest.mark.parametrize("case", CASES)
def test_real_valued_differences_are_covered(case):
    n, draw, truth = CASES[case]
    assert covered(draw(np.random.default_rng([1, *case.encode()])), truth, n) >= PROMISE


def test_clusters_are_covered_and_would_not_be_without():
    rng = np.random.default_rng(2)
    sources = np.repeat(np.arange(40), 5)
    values = 0.05 + rng.normal(0, 0.1, (RUNS, 40))[:, sources] + rng.normal(0, 0.05, (RUNS, 200))
    assert covered(values, 0.05, 200, sources.tolist()) >= PROMISE
    assert covered(values, 0.05, 200) < 0.75


def test_fit_seeds_are_covered_and_would_not_be_without():
    rng = np.random.default_rng(3)
    hits = np.zeros(2)
    for _ in range(400):
        base = rng.normal(0.6, 0.1, 100)
        seeds = base + 0.05 + rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.05, (3, 100))
        for place, rows in enumerate((seeds, seeds.mean(axis=0))):
            found = paired_difference(rows, base, resamples=500)
            hits[place] += found.low <= 0.05 <= found.high
    assert hits[0] / 400 >= PROMISE
    assert hits[1] / 400 < 0.7


@pytest.mark.parametrize("kind", ["binary", "real", "few"])
def test_retained_is_covered(kind):
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(RUNS // 4):
        if kind == "few":
            full = rng.beta(8, 2, 32)
            method, truth = np.where(rng.random(32) < 0.05, full * rng.random(32), full), 0.975
        elif kind == "binary":
            full = (rng.random(200) < 0.95).astype(float)
            method = np.where(rng.random(200) < 0.04, 1 - full, full)
            truth = (0.95 * 0.96 + 0.05 * 0.04) / 0.95
        else:
            full = rng.beta(4, 2, 200)
            method, truth = full * rng.beta(8, 2, 200), 0.8
        found = retained(method, full, resamples=500)
        hits += found.low <= truth <= found.high
    assert hits / (RUNS // 4) >= PROMISE


def table_of(rng, groups, effect, binary):
    """Return rows in groups of equal true means, and which pairs truly differ."""
    n, labels = 100, np.repeat(np.arange(groups), 9 // groups)
    base = rng.normal(0, 0.15, n)
    mean = 0.55 + effect * labels[:, None] + base + rng.normal(0, 0.12, (9, n))
    rows = (rng.random((9, n)) < mean.clip(0, 1)).astype(float) if binary else mean
    return Table(list(rows), resamples=1000), labels[:, None] != labels


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "real"])
@pytest.mark.parametrize(("groups", "effect"), [(1, 0.0), (3, 0.09)], ids=["nothing there", "something there"])
def test_false_discoveries_stay_below_five_per_cent(groups, effect, binary):
    rng = np.random.default_rng([8, groups, binary])
    false, found = [], []
    for _ in range(200):
        table, truly = table_of(rng, groups, effect, binary)
        said = np.triu(table.pairs.different, 1)
        false.append((said & ~truly).sum() / max(1, said.sum()))
        found.append((said & truly).sum())
    assert np.mean(false) <= 0.05
    assert groups == 1 or np.mean(found) > 5


def test_p_values_of_nothing_are_uniform():
    rng = np.random.default_rng(6)
    p = [permutation_p(*rng.normal(0.6, 0.1, (2, 60)), resamples=500) for _ in range(600)]
    assert scipy_stats.kstest(p, "uniform").pvalue > 0.01


def test_paired_test_finds_an_effect_that_an_unpaired_one_misses():
    rng = np.random.default_rng(7)
    paired, unpaired = 0, 0
    for _ in range(200):
        full = rng.beta(4, 2, 100)
        method = full - 0.02 + rng.normal(0, 0.05, 100)
        paired += permutation_p(method, full, resamples=1000) < 0.05
        unpaired += scipy_stats.ttest_ind(method, full).pvalue < 0.05
    assert paired / 200 > 0.9
    assert unpaired / 200 < 0.2
