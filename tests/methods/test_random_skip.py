"""Random routing: exactly the layers of the share, per token or per sequence, keyed by the document."""

import numpy as np
import pytest
import tiny_models
from fake_view import FakeView

from dlbench.engine import Engine, Request
from dlbench.methods.random_skip import RandomSkip

DEPTH = 8


def drawn(method, *, steps=1, rows=300, seed=0):
    """Who runs what: [steps, rows, depth]."""
    return np.array(
        [
            np.stack(
                [
                    method.route(FakeView(layer=i, depth=DEPTH, step=step, rows=rows, seed=seed)).numpy()
                    for i in range(DEPTH)
                ],
                axis=1,
            )
            for step in range(steps)
        ]
    )


@pytest.mark.parametrize("per", ["token", "sequence"])
@pytest.mark.parametrize("layers", range(1, DEPTH + 1))
def test_a_whole_share_draws_exactly_that_many_layers(per, layers):
    runs = drawn(RandomSkip(share=layers / DEPTH, per=per), steps=3)
    assert (runs.sum(-1) == layers).all()


def test_tokens_draw_afresh_and_sequences_once():
    tokens = drawn(RandomSkip(share=0.5), steps=6, rows=40)
    assert all((tokens[0] != tokens[step]).any(-1).mean() > 0.9 for step in range(1, 6))
    sequences = drawn(RandomSkip(share=0.5, per="sequence"), steps=6, rows=40)
    assert (sequences == sequences[0]).all()
    assert len({row.tobytes() for row in sequences[0]}) > 20
    assert (drawn(RandomSkip(share=0.5, per="sequence"), rows=40, seed=1) != sequences[0]).any()


@pytest.mark.parametrize("per", ["token", "sequence"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.55, 0.9])
def test_a_fraction_is_right_on_average(per, share):
    layers = drawn(RandomSkip(share=share, per=per), rows=4000).sum(-1)
    target = share * DEPTH
    assert set(np.unique(layers)) <= {int(target), int(target) + 1}
    assert layers.mean() == pytest.approx(target, abs=5 * 0.5 / 4000**0.5)  # five standard errors


def test_every_layer_is_drawn_as_often_as_the_others():
    often = drawn(RandomSkip(share=0.5), rows=4000)[0].mean(0)
    assert np.abs(often - 0.5).max() < 0.04


@pytest.mark.parametrize("per", ["token", "sequence"])
def test_the_first_layer_can_be_forced_as_one_of_them(per):
    runs = drawn(RandomSkip(share=0.375, per=per, first=True), steps=2)
    assert runs[..., 0].all() and (runs.sum(-1) == 3).all()
    assert not drawn(RandomSkip(share=0.375, per=per), steps=2)[..., 0].all()


def test_the_share_is_met_by_real_decoding_and_rises_with_it():
    wave = Engine(tiny_models.backbone("llama", 5)).prefill([Request(str(i), (3, 4), 8) for i in range(12)])
    for per in ("token", "sequence"):
        shares = []
        for budget in (0.2, 0.6, 1.0):
            written = wave.decode(RandomSkip(per=per).at(budget, 5))
            shares.append(np.mean([g.layers for g in written]) / 5)
        assert shares == pytest.approx([0.2, 0.6, 1.0])


def test_a_larger_share_runs_what_a_smaller_one_ran():
    few, more = (drawn(RandomSkip(share=share), rows=50)[0] for share in (0.3, 0.6))
    assert (more >= few).all()


def test_the_budget_keeps_the_other_parameters():
    assert RandomSkip(per="sequence", first=True).at(0.3, 16) == RandomSkip(share=0.3, per="sequence", first=True)
    assert (RandomSkip().scope, RandomSkip(per="sequence").scope) == ("token", "sequence")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"share": 0}, "share must lie in .0, 1., not 0"),
        ({"share": 1.01}, "not 1.01"),
        ({"share": float("nan")}, "not nan"),
        ({"per": "layer"}, "per must be token or sequence, not 'layer'"),
    ],
)
def test_bad_parameters_are_refused(params, said):
    with pytest.raises(ValueError, match=said):
        RandomSkip(**params)
