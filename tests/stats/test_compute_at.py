"""The least compute that keeps a share of quality: seldom named by luck, and found where it is truly kept."""

import numpy as np
import pytest

from dlbench.stats import (
    ComputeAt,
    Curve,
    Point,
    Table,
    compute_at,
    mean_interval,
    paired_difference,
    retained,
)

RUNS = 200
# Of 200 tries at 5 % each, more than 16 come once in forty times.
LUCK = 16 / 200
COSTS = (0.25, 0.5, 0.75, 0.9)
SOURCES = np.repeat(np.arange(50), 4)


def real(rng, kept, n=200):
    full = rng.beta(8, 2, n)
    return full, [full * share + rng.normal(0, 0.15, n) for share in kept]


def binary(rng, kept, n=200):
    full = (rng.random(n) < 0.9).astype(float)
    return full, [np.where(rng.random(n) < share, full, 0.0) for share in kept]


def collapsing(rng, kept, n=200):
    full = rng.beta(8, 2, n)
    return full, [np.where(rng.random(n) < share, (full + rng.normal(0, 0.02, n)).clip(0, 1), 0.0) for share in kept]


def seeded(rng, kept, n=200):
    full = rng.beta(8, 2, n)
    return full, [full * share + rng.normal(0, 0.03, (3, 1)) + rng.normal(0, 0.05, (3, n)) for share in kept]


def sourced(rng, kept, n=200):
    full = rng.beta(8, 2, n)
    return full, [full * share + rng.normal(0, 0.1, 50)[SOURCES] + rng.normal(0, 0.05, n) for share in kept]


def found(draw, kept, rng):
    full, rows = draw(rng, kept)
    points = [Point(cost, row) for cost, row in zip(COSTS, rows, strict=True)]
    clusters = SOURCES.tolist() if draw is sourced else None
    return compute_at(points, full, bounds=(0, 1), clusters=clusters, resamples=300).cost


NEARLY = (0.9499,) * 4
ALL = (real, binary, collapsing, seeded, sourced)


@pytest.mark.parametrize(("draw", "kept"), [*((draw, NEARLY) for draw in ALL), (real, (0.6, 0.8, 0.9, 0.9499))])
def test_none_is_named_where_none_keeps_it(draw, kept):
    rng = np.random.default_rng([1, len(set(kept)), *draw.__name__.encode()])
    named = [found(draw, kept, rng) is not None for _ in range(RUNS)]
    assert np.mean(named) <= LUCK


@pytest.mark.parametrize("draw", [real, binary, collapsing])
def test_what_keeps_it_is_found(draw):
    rng = np.random.default_rng([2, *draw.__name__.encode()])
    costs = [found(draw, (0.7, 0.9, 1.0, 1.0), rng) for _ in range(RUNS // 2)]
    assert np.mean([cost == 0.75 for cost in costs]) >= 0.9
    assert np.mean([cost is not None and cost < 0.75 for cost in costs]) <= 0.05


@pytest.mark.parametrize("draw", [real, binary])
def test_a_cheaper_one_that_does_not_keep_it_is_seldom_named(draw):
    rng = np.random.default_rng([3, *draw.__name__.encode()])
    costs = [found(draw, (0.9499, 0.9499, 1.0, 1.0), rng) for _ in range(RUNS)]
    assert np.mean([cost is not None and cost < 0.75 for cost in costs]) <= LUCK


FULL = np.random.default_rng(0).uniform(0.4, 1, 300)


def settings(**kept):
    return [Point(float(name[1:]) / 100, FULL * share) for name, share in kept.items()]


def test_the_sequence_ends_at_the_first_that_fails():
    assert compute_at(settings(c25=1.0, c50=0.9, c75=1.0, c90=1.0), FULL) == ComputeAt(0.95, 0.75)
    assert compute_at(settings(c25=1.0, c50=1.0, c75=1.0, c90=0.9), FULL) == ComputeAt(0.95, None, "not reached")


def test_the_order_they_are_given_in_is_nothing():
    points = settings(c25=0.9, c50=1.0, c75=1.0, c90=1.0)
    rng = np.random.default_rng(1)
    assert {compute_at([points[i] for i in rng.permutation(4)], FULL).cost for _ in range(8)} == {0.5}


def test_of_one_cost_all_must_pass():
    both = [Point(0.5, FULL), Point(0.5, FULL * 0.9)]
    assert compute_at(both, FULL) == compute_at(both[::-1], FULL) == ComputeAt(0.95, None, "not reached")
    assert compute_at([*both, Point(0.7, FULL)], FULL) == ComputeAt(0.95, 0.7)
    assert compute_at([Point(0.5, FULL), Point(0.5, FULL)], FULL) == ComputeAt(0.95, 0.5)


def test_99_per_cent_is_found_by_the_same_sequence():
    full = np.tile(FULL, 10)
    points = [Point(0.9, full), Point(0.7, full * 0.999), Point(0.5, full * 0.98), Point(0.3, full)]
    assert compute_at(points, full, 0.99) == ComputeAt(0.99, 0.7)
    assert compute_at(points, full, 0.99, confidence=1 - 1e-9) == ComputeAt(0.99, None, "too few documents")


def test_too_few_documents_are_not_too_little_quality():
    for n, reason in ((10, "too few documents"), (300, "")):
        full = FULL[:n]
        assert compute_at([Point(0.5, full)], full).reason == reason
        assert compute_at([Point(0.5, 0.1 * full)], full, bounds=(0, 1)).reason == "not reached"
    shared = [i // 30 for i in range(300)]
    alike = np.repeat(FULL[:10], 30)
    assert compute_at([Point(0.5, alike)], alike, clusters=shared, bounds=(0, 1)).reason == "too few sources"
    assert compute_at([], FULL[:10]).reason == "not reached"


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 10])
def test_intervals_of_few_documents_lie_in_the_range_of_the_metric(n):
    rng = np.random.default_rng([4, n])
    full = rng.uniform(0.3, 1, n)
    seeds = np.clip(full + rng.normal(0, 0.3, (3, 1)), 0, 1)
    for scores in (full, 0.05 * full, seeds):
        difference, mean = paired_difference(scores, full, bounds=(0, 1)), mean_interval(scores, bounds=(0, 1))
        kept, pairs = retained(scores, full, bounds=(0, 1)), Table([scores, full], bounds=(0, 1)).pairs
        band = Curve([Point(0.5, scores)], bounds=(0, 1)).band([0.5])
        assert -1 <= difference.low <= difference.estimate <= difference.high <= 1
        assert (pairs.low >= -1).all() and (pairs.high <= 1).all()
        assert 0 <= mean.low <= mean.high <= 1 and band.low[0] >= 0 and band.high[0] <= 1
        assert kept is None or 0 <= kept.low <= kept.estimate <= kept.high
