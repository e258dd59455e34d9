import numpy as np
import pytest

from dlbench.stats import (
    ComputeAt,
    Curve,
    Point,
    compute_at,
    gap_closed,
    matched_difference,
    paired_difference,
    pareto_probability,
    reach,
)

RNG = np.random.default_rng(0)
N = 200
FULL = RNG.beta(8, 2, N)
LOW, MIDDLE, HIGH = (np.clip(FULL * kept + RNG.normal(0, 0.05, N), 0, 1) for kept in (0.3, 0.7, 0.95))
CURVE = Curve([Point(0.75, HIGH), Point(0.25, LOW), Point(0.5, MIDDLE)])


def flat(value, n=4):
    return np.full(n, float(value))


def test_curve_mixes_the_scores_of_its_neighbours():
    point = CURVE.at(0.3)
    assert point.scores[0] == pytest.approx(0.8 * LOW + 0.2 * MIDDLE)
    assert CURVE.at(0.5).scores[0] == pytest.approx(MIDDLE)
    assert CURVE.span == (0.25, 0.75)


def test_curve_is_never_extrapolated():
    assert CURVE.at(0.24) is None
    assert CURVE.at(0.76) is None
    assert CURVE.band([0.1, 0.2, 0.9]).cost.size == 0
    assert CURVE.band([]).cost.size == 0
    assert matched_difference(Point(0.8, FULL), CURVE) is None


def test_end_of_a_curve_stands_for_what_is_near_it():
    near = CURVE.at(0.77, slack=0.03)
    assert (near.cost, near.scores[0].tolist()) == (0.75, HIGH.tolist())
    assert CURVE.at(0.79, slack=0.03) is None
    assert matched_difference(Point(0.77, FULL), CURVE, slack=0.03) == paired_difference(FULL, HIGH)


def test_curve_is_not_made_monotone():
    curve = Curve([Point(0.2, flat(0.5)), Point(0.4, flat(0.3)), Point(0.6, flat(0.7))])
    assert [np.mean(curve.at(cost).scores) for cost in (0.3, 0.4, 0.5)] == pytest.approx([0.4, 0.3, 0.5])


def test_settings_of_one_cost_are_averaged():
    curve = Curve([Point(0.5, flat(0.2)), Point(0.5, flat(0.6)), Point(1.0, flat(1.0))])
    assert np.mean(curve.at(0.5).scores) == pytest.approx(0.4)
    assert curve.costs.tolist() == [0.5, 1.0]


def test_band_at_a_setting_is_the_interval_of_its_mean():
    band = CURVE.band([0.25, 0.4, 0.75])
    own = Curve([Point(0.75, HIGH)]).band([0.75])
    assert band.cost.tolist() == [0.25, 0.4, 0.75]
    assert band.estimate[[0, 2]] == pytest.approx([LOW.mean(), HIGH.mean()])
    assert (band.low[2], band.high[2]) == pytest.approx((own.low[0], own.high[0]))
    assert (band.low < band.estimate).all() and (band.estimate < band.high).all()


def test_band_of_what_is_retained_ends_in_one_at_full():
    curve = Curve([Point(0.25, LOW), Point(0.75, HIGH), Point(1.0, FULL)])
    band = curve.band([0.25, 1.0], full=FULL, full_cost=1.0)
    assert band.estimate == pytest.approx([LOW.mean() / FULL.mean(), 1])
    assert band.low[0] < band.estimate[0] < band.high[0]
    assert (band.low[1], band.high[1]) == (1, 1)
    assert curve.band([0.25], full=np.zeros(N)).cost.size == 0


def test_band_widens_by_fit_seeds():
    seeds = LOW + np.array([[-0.05], [0.0], [0.05]])
    one, three = (Curve([Point(0.2, low), Point(0.8, HIGH)]).band([0.2, 0.5]) for low in (LOW, seeds))
    assert ((three.high - three.low) > 1.5 * (one.high - one.low)).all()


def test_area_by_hand():
    curve = Curve([Point(0.1, flat(0)), Point(0.4, flat(0.6)), Point(0.8, flat(0.6))])
    area = curve.area()
    # From 0.2 to 0.4 it rises from 0.2 to 0.6, mean 0.4 over a third of the width, then stays at 0.6.
    assert (area.low, area.high) == (0.2, 0.8)
    assert area.height.estimate == pytest.approx(0.4 / 3 + 0.6 * 2 / 3)
    assert curve.area(0.4, 0.8).height.estimate == pytest.approx(0.6)
    assert curve.area(0.9, 1.0) is None
    assert Curve([Point(0.5, flat(1))]).area() is None


def test_area_has_an_interval_over_documents_and_costs():
    fixed = CURVE.area().height
    assert fixed.low < fixed.estimate < fixed.high
    spread = RNG.normal(0, 0.3, N)
    costly = Curve([Point(0.25, LOW, 0.25 + spread), Point(0.5, MIDDLE, 0.5 + spread), Point(0.75, HIGH)])
    uncertain = costly.area().height
    assert uncertain.estimate == pytest.approx(fixed.estimate)
    assert uncertain.high - uncertain.low > 1.1 * (fixed.high - fixed.low)


def test_matched_difference_is_at_the_realised_cost():
    method = Point(0.6, MIDDLE)
    found = matched_difference(method, CURVE)
    assert found.estimate == pytest.approx(MIDDLE.mean() - (0.6 * MIDDLE.mean() + 0.4 * HIGH.mean()))
    assert matched_difference(Point(0.5, LOW), CURVE) == paired_difference(LOW, MIDDLE)


def test_matched_difference_covers_the_truth_when_costs_vary():
    rng = np.random.default_rng(1)
    hits = np.zeros(2)
    for _ in range(400):
        effort = rng.normal(0, 0.4, 400)  # hard documents cost the method more; its truth is on the line at its cost
        control = [Point(cost, cost + rng.normal(0, 0.02, 400)) for cost in (0.2, 0.8)]
        costs = 0.5 + effort
        scores = 0.5 + rng.normal(0, 0.02, 400)
        for place, known in enumerate((costs, None)):
            found = matched_difference(Point(costs.mean(), scores, known), Curve(control), resamples=300)
            hits[place] += found.low <= 0 <= found.high
    assert hits[0] / 400 >= 0.93
    assert hits[1] / 400 < 0.5


def test_pareto_probability_by_hand():
    # The second is surely dominated; the third is better than the first on 3 of 4 documents and as much worse on one.
    points = [
        Point(0.3, [0.5, 0.5, 0.5, 0.5]),
        Point(0.4, [0.4, 0.4, 0.4, 0.4]),
        Point(0.5, [0.6, 0.6, 0.6, 0.4]),
        Point(0.5, [0.6, 0.6, 0.6, 0.4]),
    ]
    chances = pareto_probability(points, resamples=20_000)
    # On the front unless two or more of the four draws are the last document; a tie is dominated: as good, but cheaper.
    on_front = 0.75**4 + 4 * 0.25 * 0.75**3
    assert chances.tolist() == pytest.approx([1, 0, on_front, on_front], abs=0.01)
    assert pareto_probability([]).size == 0


def test_pareto_probability_resamples_costs_and_seeds():
    cheap = Point(0.5, flat(0.5, 50), 0.5 + 0.1 * RNG.normal(size=50))
    sure, unsure = Point(0.5, flat(0.4, 50)), Point(0.505, flat(0.4, 50), 0.505 + 0.1 * RNG.normal(size=50))
    assert pareto_probability([Point(0.5, flat(0.5, 50)), sure]).tolist() == [1, 0]
    assert 0.2 < pareto_probability([cheap, unsure])[1] < 0.7
    seeds = 0.4 + np.array([[-0.2], [0.0], [0.2]]) * np.ones(50)
    assert 0.05 < pareto_probability([Point(0.5, flat(0.5, 50)), Point(0.5, seeds)])[1] < 0.5


def test_full_depth_may_score_what_no_setting_does():
    rng = np.random.default_rng(3)
    full = rng.uniform(0.2, 1, 12)
    row = full * rng.uniform(0.3, 0.6, 12)
    narrow, wide = (Curve([Point(0.5, row)], bounds=(0, top)).band([0.5], full=full) for top in (row.max(), 1))
    assert narrow.low == pytest.approx(wide.low, rel=1e-9)  # what the settings may score bounds only them


def test_compute_at_is_the_cheapest_that_surely_keeps_it():
    points = [Point(0.9, FULL * 0.99), Point(0.5, FULL * 0.9), Point(0.7, FULL * 0.98), Point(0.6, FULL * 0.5)]
    assert compute_at(points, FULL) == ComputeAt(0.95, 0.7)
    assert compute_at(points[1:2], FULL) == ComputeAt(0.95, None, "not reached")
    assert compute_at([], FULL).reason == "not reached"


def test_compute_at_wants_the_bound_not_the_estimate():
    noise = RNG.normal(0, 0.3, N)
    noisy = FULL * 0.96 + noise - noise.mean()
    assert noisy.mean() > 0.95 * FULL.mean()
    assert compute_at([Point(0.5, noisy)], FULL).cost is None


def test_compute_at_tests_nothing_that_misses_the_target_as_measured(monkeypatch):
    monkeypatch.setattr(reach, "contrast", None)
    assert compute_at([Point(0.5, FULL * 0.9), Point(0.7, LOW)], FULL) == ComputeAt(0.95, None, "not reached")


def test_compute_at_by_hand():
    # 196 of 200 kept right: the lower end of the 90 % score interval of mean(q − 0.95) decides.
    full = np.ones(200)
    for wrong, reached in ((2, True), (4, True), (5, False), (10, False)):
        kept = np.r_[np.zeros(wrong), np.ones(200 - wrong)]
        p, z = 1 - wrong / 200, 1.6448536
        wilson = (p + z**2 / 400 - z * np.sqrt(p * (1 - p) / 200 + z**2 / 160_000)) / (1 + z**2 / 200)
        assert (wilson >= 0.95) == reached
        assert (compute_at([Point(0.4, kept)], full).cost == 0.4) == reached


def test_keeping_99_per_cent_takes_two_thousand_documents():
    assert compute_at([Point(0.5, FULL)], FULL, 0.99).reason == "needs 2,000 documents, there are 200"
    many = np.tile(FULL, 10)
    assert compute_at([Point(0.5, many)], many, 0.99) == ComputeAt(0.99, 0.5)


def test_nothing_keeps_a_share_of_nothing():
    assert compute_at([Point(0.5, np.ones(10))], np.zeros(10)).reason == "full depth scores nothing"


def test_gap_closed_by_hand():
    control, oracle = np.r_[np.zeros(150), np.ones(50)], np.ones(200)
    method = np.r_[np.zeros(75), np.ones(125)]
    found = gap_closed(method, control, oracle)
    assert found.estimate == pytest.approx((0.625 - 0.25) / (1 - 0.25))
    # Of the 150 documents that random routing loses the method wins half; the others say nothing about the share.
    assert (found.low, found.high) == pytest.approx((0.42, 0.58), abs=0.01)
    seeds = gap_closed([method, 1 - method], control, oracle)
    assert seeds.high - seeds.low > found.high - found.low


def test_no_gap_no_share():
    rng = np.random.default_rng(0)
    control = rng.random(60)
    assert gap_closed(control, control, control + rng.normal(0, 0.1, 60)) is None
    assert gap_closed(control, control, control - 0.1) is None


def test_refuses_what_does_not_pair():
    with pytest.raises(ValueError, match="scores"):
        Curve([])
    with pytest.raises(ValueError, match="scores"):
        Curve([Point(0.5, [1.0]), Point(0.6, [1.0, 0.5])])
    with pytest.raises(ValueError, match="costs"):
        Curve([Point(0.5, [1.0, 0.0], [0.5])])
