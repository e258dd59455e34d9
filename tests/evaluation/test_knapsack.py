import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlbench.evaluation.knapsack import Knapsack, best_of, cross

# Sums of quarters are exact in floating point, so that results can be compared with ==.
QUARTERS = st.integers(-4, 8).map(lambda quarters: quarters / 4)


@st.composite
def tables(draw):
    groups, items = draw(st.integers(1, 5)), draw(st.integers(1, 4))

    def table(element):
        return draw(st.lists(st.lists(element, min_size=items, max_size=items), min_size=groups, max_size=groups))

    return np.array(table(st.integers(0, 9))), np.array(table(QUARTERS))


def brute(weights, values):
    """Map each total weight to the best sum of values at exactly that weight."""
    best = {}
    groups = range(len(weights))
    for items in itertools.product(range(weights.shape[1]), repeat=len(weights)):
        weight = sum(int(weights[g, items[g]]) for g in groups)
        best[weight] = max(best.get(weight, -np.inf), sum(values[g, items[g]] for g in groups))
    return best


@settings(max_examples=150, deadline=None)
@given(tables())
def test_equals_brute_force_at_every_capacity(table):
    weights, values = table
    best, groups = brute(weights, values), len(weights)
    knapsack = Knapsack(weights, values)
    for capacity in range(-1, max(best) + 3):
        within = [value for weight, value in best.items() if weight <= capacity]
        choice = knapsack.choose(capacity / groups)
        if not within:
            assert choice is None
            continue
        rows = np.arange(groups)
        assert choice.value == max(within) / groups
        assert choice.value == values[rows, choice.items].mean()
        assert choice.depth == weights[rows, choice.items].mean() <= capacity / groups
        # Of equally good choices it is the lightest.
        assert choice.depth * groups == pytest.approx(min(w for w, v in best.items() if v == max(within)))


@settings(max_examples=100, deadline=None)
@given(tables(), QUARTERS)
def test_reaches_a_value_with_the_fewest_layers(table, wanted):
    weights, values = table
    groups = len(weights)
    enough = [weight for weight, value in brute(weights, values).items() if value / groups >= wanted]
    choice = Knapsack(weights, values).reach(wanted)
    if not enough:
        assert choice is None
    else:
        assert choice.depth * groups == pytest.approx(min(enough))
        assert choice.value >= wanted


@settings(max_examples=50, deadline=None)
@given(tables())
def test_frontier_lists_exactly_the_rises(table):
    weights, values = table
    rises, top = [], -np.inf
    for weight, value in sorted(brute(weights, values).items()):
        if value > top:
            rises.append((weight / len(weights), value / len(weights)))
            top = value
    depths, scores = Knapsack(weights, values).frontier()
    assert list(zip(depths, scores, strict=True)) == rises


def test_concave_hulls_are_not_enough():
    # On each document's hull only 0 and 10 layers remain; the best use of 10 layers for two documents is 5 and 5.
    choice = Knapsack([[0, 5, 10]] * 2, [[0.0, 0.45, 1.0], [0.0, 0.6, 1.0]]).choose(5)
    assert choice.value == pytest.approx(0.525)
    assert choice.items.tolist() == [1, 1]


def test_first_document_takes_its_best_item_not_its_first():
    choice = Knapsack([1, 1, 2], [[0.1, 0.9, 0.5], [0.2, 0.1, 0.3]]).choose(1)
    assert choice.items.tolist() == [1, 0]


def test_capacity_below_the_lightest_items_is_refused_not_clipped():
    knapsack = Knapsack([[3, 4], [5, 6]], [[0.0, 1.0], [0.0, 1.0]])
    assert knapsack.least == 4
    assert knapsack.choose(3.9) is None
    assert knapsack.choose(-1) is None
    assert knapsack.choose(4).items.tolist() == [0, 0]


def test_budget_that_rounding_leaves_a_hair_short_still_counts():
    assert Knapsack([3], [[1.0]] * 10).choose(0.3 * 10).depth == 3
    assert Knapsack([1, 2], [[0.0, 1.0]] * 10).choose(0.1 + 0.2 + 1).value == pytest.approx(0.3)


def test_scaled_weights_cost_no_more_than_plain_ones():
    rng = np.random.default_rng(0)
    weights, values = rng.integers(1, 9, (20, 6)), rng.random((20, 6))
    plain, scaled = Knapsack(weights, values).choose(4), Knapsack(weights * 1_000_000, values).choose(4_000_000)
    assert plain.items.tolist() == scaled.items.tolist()


def test_best_of_ignores_weight_but_breaks_ties_by_it():
    choice = best_of([[0.5, 0.5, 0.1], [0.2, 0.9, 0.9]], [8, 4, 1])
    assert choice.items.tolist() == [1, 2]
    assert choice.value == pytest.approx(0.7)
    assert best_of([[0.1, 0.2]]).depth == 0


def test_cross_scores_what_the_other_table_chose():
    choice = cross([[0.0, 1.0]], [[0.8, 0.3]], [1, 2], 2)
    assert (choice.items.tolist(), choice.value) == ([1], 0.3)
    assert cross([[0.0, 1.0]], [[0.8, 0.3]], [1, 2], 0.5) is None


@pytest.mark.parametrize(
    ("weights", "values"),
    [
        ([1, 2], [0.1, 0.2]),
        ([1, 2, 3], [[0.1, 0.2]]),
        ([1, -2], [[0.1, 0.2]]),
        ([1, 2.5], [[0.1, 0.2]]),
        ([1, np.inf], [[0.1, 0.2]]),
        ([1, 2], [[0.1, np.nan]]),
        (np.zeros((0, 2)), np.zeros((0, 2))),
        ([0, 2**40 + 1, 2**41], [[0.0, 0.1, 0.2]]),
    ],
)
def test_refuses_what_is_not_a_table(weights, values):
    with pytest.raises(ValueError, match=r"table|finite|whole|too much"):
        Knapsack(weights, values)


def test_two_thousand_documents_with_24_candidates_each_worth_its_weight():
    # Scores that rise with depth leave no candidate dominated: the hardest case.
    values = np.sort(np.random.default_rng(0).random((2000, 24)), axis=1)
    start = time.process_time()
    knapsack = Knapsack(np.arange(1, 25), values)
    choice = knapsack.choose(12)
    assert time.process_time() - start < 10
    assert choice.depth == 12
    assert knapsack.reach(values[:, -1].mean()).depth == 24
