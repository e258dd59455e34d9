"""Most documents differ a little and few collapse: intervals cover even where a bootstrap sees no collapse."""

import numpy as np
import pytest

from dlbench.stats import Curve, Point, Resample, Table, gap_closed, minimum_detectable, paired_difference, retained
from dlbench.stats.bounds import BCA, SCORE, Samples, bca_bounds, mean_bounds
from dlbench.stats.unseen import effective_mass, unseen_share

RUNS = 600
PROMISE = 0.93


def little(rng, shape):
    return rng.normal(0, 0.02, shape)


def middling(rng, shape):
    return rng.normal(0, 0.06, shape)


def skewed(rng, shape):
    return 0.03 * (rng.exponential(1, shape) - 1)


def heavy(rng, shape):
    return np.clip(0.02 * rng.standard_t(3, shape), -1, 1)


def lumpy(rng, shape):
    """Differences of ROUGE: half of the documents tie, the rest are a word or two apart."""
    return np.where(rng.random(shape) < 0.5, 0.0, rng.integers(-2, 3, shape) / 30)


def collapsing(rng, shape, share, usual=little, depth=(0.5, 1.0), sign=-1):
    return np.where(rng.random(shape) < share, sign * rng.uniform(*depth, shape), usual(rng, shape))


def bounds_of(values, clusters=None):
    resample = Resample(values.shape[1], clusters=clusters, resamples=1000)
    samples = Samples(
        values=values,
        low=np.full(len(values), -1.0),
        high=np.ones(len(values)),
        binary=np.zeros(len(values), dtype=bool),
        codes=resample.codes,
    )
    low, high, _ = mean_bounds(samples, lambda some: resample.means(values[some]), 0.95)
    return low, high


def missed(low, high, truth):
    """Return how often the truth lies below the interval, and above it."""
    return np.mean(truth < np.asarray(low)), np.mean(truth > np.asarray(high))


def held(low, high, truth):
    below, above = missed(low, high, truth)
    # Neither side may owe its coverage to the other.
    return below + above <= 1 - PROMISE and max(below, above) <= 0.05


@pytest.mark.parametrize("n", [60, 120, 200, 500])
@pytest.mark.parametrize("share", [0.005, 0.01, 0.02, 0.05])
def test_rare_collapse_is_covered(n, share):
    values = collapsing(np.random.default_rng([1, n, int(1000 * share)]), (RUNS, n), share)
    assert held(*bounds_of(values), -0.75 * share)


KINDS = {
    "rare gains": (lambda rng, shape, p: collapsing(rng, shape, p, sign=1), 0.75),
    "both ways": (lambda rng, shape, p: collapsing(rng, shape, p) * rng.choice([-1, 1], shape), 0.0),
    "down to nothing": (lambda rng, shape, p: collapsing(rng, shape, p, depth=(1.0, 1.0)), -1.0),
    "among more noise": (lambda rng, shape, p: collapsing(rng, shape, p, middling), -0.75),
    "among skewed": (lambda rng, shape, p: collapsing(rng, shape, p, skewed), -0.75),
    "among heavy tails": (lambda rng, shape, p: collapsing(rng, shape, p, heavy), -0.75),
    "among lumps": (lambda rng, shape, p: collapsing(rng, shape, p, lumpy), -0.75),
    "of several depths": (lambda rng, shape, p: collapsing(rng, shape, p, depth=(0.0, 1.0)), -0.5),
}


@pytest.mark.parametrize(
    ("kind", "n", "share"),
    [(kind, 120, 0.02) for kind in KINDS] + [(kind, 500, 0.005) for kind in ("both ways", "among more noise")],
)
def test_rare_collapse_of_other_kinds_is_covered(kind, n, share):
    draw, depth = KINDS[kind]
    values = draw(np.random.default_rng([2, n, *kind.encode()]), (3 * RUNS, n), share)
    assert held(*bounds_of(values), depth * share)


def test_a_bootstrap_alone_would_not_cover_it():
    n, share = 200, 0.01
    for kind in ("down to nothing", "both ways"):
        draw, depth = KINDS[kind]
        values = draw(np.random.default_rng([3, *kind.encode()]), (RUNS, n), share)
        influence = values - values.mean(axis=1, keepdims=True)
        low, high = bca_bounds(values.mean(axis=1), Resample(n, resamples=1000).means(values), influence, 0.95)
        assert 1 - sum(missed(low, high, depth * share)) < 0.87


@pytest.mark.parametrize(("sources", "each", "share"), [(40, 4, 0.05), (160, 3, 0.01), (160, 3, 0.02)])
def test_sources_that_collapse_whole_are_covered(sources, each, share):
    rng = np.random.default_rng([4, sources, int(100 * share)])
    clusters = np.repeat(np.arange(sources), each)
    gone = (rng.random((RUNS, sources)) < share)[:, clusters]
    usual = little(rng, (RUNS, sources))[:, clusters] + little(rng, gone.shape)
    values = np.where(gone, -rng.uniform(0.5, 1, gone.shape), usual)
    assert held(*bounds_of(values, clusters.tolist()), -0.75 * share)


def test_sources_of_unequal_size_that_collapse_whole_are_covered():
    rng = np.random.default_rng(5)
    clusters = np.repeat(np.arange(80), rng.integers(1, 9, 80))
    gone = (rng.random((RUNS, 80)) < 0.025)[:, clusters]
    values = np.where(gone, -rng.uniform(0.5, 1, gone.shape), little(rng, gone.shape))
    assert held(*bounds_of(values, clusters.tolist()), -0.75 * 0.025)


@pytest.mark.parametrize(("n", "share", "full"), [(200, 0.01, (8, 2)), (120, 0.02, (8, 2)), (200, 0.01, (2, 3))])
def test_what_is_retained_is_covered(n, share, full):
    rng = np.random.default_rng([6, n, full[0]])
    found = []
    for _ in range(RUNS // 3):
        base = rng.beta(*full, n)
        method = np.where(rng.random(n) < share, 0.0, base * (1 + little(rng, n)))
        found.append(retained(method, base, resamples=300, bounds=(0, 1)))
    assert held([one.low for one in found], [one.high for one in found], 1 - share)


def test_a_band_and_an_area_are_covered():
    n, share = 200, 0.01
    rng = np.random.default_rng(7)
    points, areas = [], []
    for _ in range(RUNS // 3):
        full = rng.beta(8, 2, n)
        gone = rng.random(n) < share
        settings = [np.where(gone, 0.0, (0.8 + little(rng, n)).clip(0, 1)) for _ in range(2)]
        curve = Curve([Point(0.4, settings[0]), Point(0.8, settings[1]), Point(1.0, full)], bounds=(0, 1))
        points.append(curve.band([0.6], resamples=300))
        areas.append(curve.area(0.4, 0.8, resamples=300).height)
    truth = 0.8 * (1 - share)
    assert held([one.low[0] for one in points], [one.high[0] for one in points], truth)
    assert held([one.low for one in areas], [one.high for one in areas], truth)


def test_the_share_of_a_gap_is_covered():
    n, share = 200, 0.01
    rng = np.random.default_rng(8)
    found = []
    for _ in range(RUNS // 3):
        control, oracle = rng.uniform(0.2, 0.3, n), rng.uniform(0.8, 0.9, n)
        method = np.where(rng.random(n) < share, 0.0, (control + oracle) / 2 + little(rng, n))
        found.append(gap_closed(method, control, oracle, resamples=300, bounds=(0, 1)))
    truth = 0.5 - share * 0.55 / 0.6
    assert held([one.low for one in found], [one.high for one in found], truth)


def test_all_pairs_of_a_table_are_covered():
    n, share, rows = 200, 0.01, 5
    rng = np.random.default_rng(9)
    hits = []
    for _ in range(RUNS // 3):
        base = rng.uniform(0.6, 0.9, n)
        scores = [np.where(rng.random(n) < share * row, 0.0, base + little(rng, n)) for row in range(rows)]
        pairs = Table(scores, bounds=(0, 1), resamples=500).pairs
        truth = -0.75 * share * np.subtract.outer(np.arange(rows), np.arange(rows))
        there = (pairs.low <= truth) & (truth <= pairs.high)
        hits.append(there[np.triu_indices(rows, 1)])
    assert np.mean(hits) >= PROMISE
    assert np.mean(hits, axis=0).min() >= PROMISE - 0.02  # of one pair there are but 200 draws


def test_a_hair_of_difference_leaves_as_much_doubt_as_none():
    n = 200
    ties = paired_difference(np.full(n, 0.8), np.full(n, 0.8))
    hair = paired_difference(np.full(n, 0.8) + 1e-6 * np.random.default_rng(0).normal(size=n), np.full(n, 0.8))
    assert ties.high == pytest.approx(unseen_share(n, 0.95))
    assert (hair.low, hair.high) == pytest.approx((ties.low, ties.high), abs=1e-5)


def test_where_many_differ_enough_the_bootstrap_is_left_alone():
    rng = np.random.default_rng(10)
    a, b = 0.5 + rng.normal(0, 0.1, (2, 300))
    found = paired_difference(a, b, bounds=(0, 1))
    difference = a - b
    low, high = bca_bounds(
        np.array([difference.mean()]), Resample(300).means(difference), (difference - difference.mean())[None], 0.95
    )
    assert found.method == BCA
    assert (found.low, found.high) == pytest.approx((low[0], high[0]))


def test_mass_is_that_of_as_many_equal_deviations():
    rows = np.zeros((4, 100))
    rows[0, :7] = 0.3
    rows[1] = np.where(np.arange(100) % 2, 5.0, -5.0)
    rows[2] = 0.01
    rows[2, 0] = 1.0  # (0.99 + 1)² ÷ (99 · 0.01² + 1)
    assert effective_mass(rows) == pytest.approx([7, 100, 1.99**2 / 1.0099, 0])
    assert effective_mass(rows * 1e-200) == pytest.approx(effective_mass(rows))


def test_few_that_outweigh_all_others_have_the_score_interval_though_all_differ():
    rng = np.random.default_rng(11)
    a = 0.8 + little(rng, 400)
    b = np.full(400, 0.8)
    assert paired_difference(a, b, bounds=(0, 1)).method == BCA
    a[:3] = 0.0
    assert paired_difference(a, b, bounds=(0, 1)).method == SCORE


def test_what_could_be_found_is_no_less_than_the_doubt():
    rng = np.random.default_rng(12)
    a = 0.7 + little(rng, 200)
    least = minimum_detectable(a, np.full(200, 0.7), bounds=(0, 1))
    found = [
        paired_difference(0.7 + least + little(rng, 200), np.full(200, 0.7), bounds=(0, 1)).excludes_zero
        for _ in range(200)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.1)
    assert least > 2 * minimum_detectable(a, np.full(200, 0.7), bounds=(0.6, 0.8))
