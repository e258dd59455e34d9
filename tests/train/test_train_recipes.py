"""Recipes by hand: weights of exits, probabilities of layer dropout, layer sets, and what they refuse."""

import math

import pytest

from dlbench.errors import DlbenchError
from dlbench.train.recipes import LayerSkip, SkipTuned, Sorted, ladder


@pytest.mark.parametrize(
    ("depth", "exits"),
    [
        (16, (4, 6, 8, 10, 12, 14, 16)),
        (40, (10, 15, 20, 25, 30, 35, 40)),
        (24, (6, 9, 12, 15, 18, 21, 24)),
        (5, (2, 3, 4, 5)),
        (2, (1, 2)),
        (1, (1,)),
    ],
)
def test_the_ladder_goes_from_a_quarter_of_the_depth_to_all_of_it(depth, exits):
    assert ladder(depth) == exits


def test_sorted_weighs_its_prefixes_alike_and_always_has_the_full_depth():
    assert Sorted((8, 4)).weights(16, step=3) == {4: 1 / 3, 8: 1 / 3, 16: 1 / 3}
    assert Sorted().weights(16, step=0) == dict.fromkeys((4, 6, 8, 10, 12, 14, 16), 1 / 7)
    assert Sorted((4, 16)).measured(16) == {"exit 4": frozenset(range(4)), "full": frozenset(range(16))}
    assert Sorted().dropout(16) == (0.0,) * 16 and Sorted().layers(16) == frozenset(range(16))


def test_the_weights_of_layerskip_rise_with_depth():
    # after layer l: scale * (0 + … + l) = 0, 1, 3 for l = 0, 1, 2; the last: 3 + scale * (0 + 1 + 2) = 6
    assert LayerSkip(scale=1.0, curriculum="all").weights(4, step=0) == {2: 0.1, 3: 0.3, 4: 0.6}
    # half of the scale: 0, 0.5, 1.5, and 3 + 1.5 = 4.5; their sum is 6.5
    weights = LayerSkip(scale=0.5, curriculum="all").weights(4, step=7)
    assert weights == pytest.approx({2: 0.5 / 6.5, 3: 1.5 / 6.5, 4: 4.5 / 6.5})
    assert LayerSkip(scale=0.0, curriculum="all").weights(4, step=0) == {4: 1.0}
    assert LayerSkip().weights(1, step=0) == {1: 1.0}


def test_the_rotation_moves_on_by_a_layer_each_step_and_keeps_the_last():
    recipe = LayerSkip(stride=3)
    exits = [sorted(recipe.weights(8, step)) for step in range(4)]
    # layers l < 7 with l ≡ step (mod 3) but for l = 0, whose weight is 0; an exit stands after its layer
    assert exits == [[4, 7, 8], [2, 5, 8], [3, 6, 8], [4, 7, 8]]
    # step 1: 1, 0 + … + 4 = 10, and 7 + 21 = 28
    assert recipe.weights(8, 1) == pytest.approx({2: 1 / 39, 5: 10 / 39, 8: 28 / 39})
    assert all(math.isclose(sum(LayerSkip().weights(16, s).values()), 1) for s in range(5))
    assert sorted(LayerSkip().weights(16, 1)) == [2, 6, 10, 14, 16]  # every quarter of the depth


def test_layer_dropout_is_0_at_the_first_layer_and_p_max_at_the_last():
    p = LayerSkip(p_max=0.2).dropout(5)
    # 0.2 * (2^(l/4) - 1)
    expected = [0.2 * (2 ** (layer / 4) - 1) for layer in range(5)]
    assert p == pytest.approx(expected)
    assert p[0] == 0 and p[2] == pytest.approx(0.2 * (math.sqrt(2) - 1)) and p[4] == pytest.approx(0.2)
    assert LayerSkip(p_max=0.2).dropout(1) == (0.0,)


def test_skip_tuned_takes_the_set_of_a_static_method():
    recipe = SkipTuned("static_skip", {"share": 0.5})
    assert recipe.layers(6) == {0, 2, 4}
    assert recipe.weights(6, step=2) == {6: 1.0}
    assert recipe.measured(6) == {"static_skip": frozenset({0, 2, 4}), "full": frozenset(range(6))}
    assert SkipTuned("unified_skip", {"speedup": 2.0}).layers(24) == {*range(0, 21, 2), 23}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Sorted((5,)), r"exit 5: the model has 4 layers; give numbers from 1 to 4"),
        (Sorted((0, 2)), r"exit 0: "),
        (LayerSkip(p_max=1.0), r"layer dropout 1\.0: give a probability"),
        (LayerSkip(scale=-1.0), r"exit scale -1\.0"),
        (LayerSkip(stride=9), r"exit stride 9: give a number from 1 to 4"),
        (SkipTuned("hidden_router"), r"'hidden_router' has no fixed set of layers"),
        (SkipTuned("static_skip", {"share": 0.0}), r"'static_skip': share must lie in \(0, 1\]"),
        (SkipTuned("static_skip", {"only": (0, 9)}), r"'static_skip': layers \[0, 9\] do not fit a backbone of 4"),
        (SkipTuned("static_skip", {"shares": 1}), r"'static_skip': no parameter 'shares'"),
    ],
)
def test_what_does_not_fit_is_refused(recipe, message):
    with pytest.raises(DlbenchError, match=message):
        recipe.validate(4)
