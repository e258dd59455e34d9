"""Confidence exits: each measure and decay against numbers made by hand, and where they may happen."""

import math

import pytest
import tiny_models
import torch
from fake_view import FakeView

from dlbench.engine import Engine, Request
from dlbench.method import Action
from dlbench.methods.confidence_exit import ConfidenceExit

# softmax of logs of probabilities gives the probabilities back
PROBABILITIES = torch.tensor([[0.5, 0.3, 0.2, 0.0 + 1e-30], [0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25]])


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        ("top2", [0.2, 0.96, 0.0]),
        ("top1", [0.5, 0.97, 0.25]),
        (
            "entropy",
            [
                1 + (0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2)) / math.log(4),
                1 + (0.97 * math.log(0.97) + 0.03 * math.log(0.01)) / math.log(4),
                0.0,
            ],
        ),
    ],
)
def test_measures_of_the_exit_head(measure, expected):
    view = FakeView(rows=3, logits=PROBABILITIES.log())
    found = ConfidenceExit(measure=measure).confidence(view)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=1e-6)


def test_saturation_is_the_cosine_with_the_last_executed_input():
    before = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    hidden = torch.tensor([[3.0, 4.0], [-1.0, 1.0], [5.0, 0.0]])
    found = ConfidenceExit(measure="saturation").confidence(FakeView(rows=3, before=before, hidden=hidden))
    torch.testing.assert_close(found, torch.tensor([0.6, 0.0, 1.0]))


def test_decays_at_points_made_by_hand():
    limit = torch.tensor([20, 40])
    at_start = {"none": [0.8, 0.8], "paper": [0.82, 0.82], "code": [0.8, 0.8]}
    # step 10: x = 1/2 and 1/4, exp(-4x) = 0.1353353 and 0.3678794
    later = {"none": [0.8, 0.8], "paper": [0.7335335, 0.7567879], "code": [0.7308268, 0.7494304]}
    for decay in at_start:
        method = ConfidenceExit(threshold=0.8, decay=decay)
        for step, expected in ((0, at_start[decay]), (10, later[decay])):
            found = method.thresholds(step, limit)
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-6)
    assert ConfidenceExit(threshold=1.0, decay="paper").thresholds(0, limit).tolist() == [1.0, 1.0]  # clipped
    slow = ConfidenceExit(threshold=0.5, decay="code", tau=2.0).thresholds(10, limit)
    assert slow[0] == pytest.approx(0.45 + 0.05 * math.exp(-1))


def test_leaves_where_the_confidence_reaches_the_threshold():
    view = FakeView(layer=2, rows=3, logits=PROBABILITIES.log())
    answer = ConfidenceExit(threshold=0.5, measure="top1").route(view)
    assert answer.tolist() == [Action.EXIT, Action.EXIT, Action.RUN]
    assert len(view.close) == 1  # the threshold is compared where close calls are noted


@pytest.mark.parametrize(
    ("params", "checked"),
    [
        ({}, {2, 4, 6}),
        ({"min_layers": 4}, {4, 6}),
        ({"min_layers": 5}, {6}),
        ({"check": (1, 5)}, {1, 5}),
        ({"check": (1, 5), "min_layers": 3}, {5}),
        ({"check": (3,)}, {3}),
    ],
)
def test_checks_only_where_it_is_told_to(params, checked):
    method = ConfidenceExit(threshold=-1.0, **params)  # always confident
    method.validate(8)
    left = set()
    for layer in range(8):
        looked = []
        view = FakeView(layer=layer, rows=3)
        view.logits = lambda looked=looked: looked.append(1) or PROBABILITIES.log()
        answer = method.route(view)
        if isinstance(answer, torch.Tensor):
            assert answer.tolist() == [Action.EXIT] * 3
            left.add(layer)
        else:
            assert answer == Action.RUN
        assert bool(looked) == (layer in checked)  # a head that nobody needs is not charged
    assert left == checked


def test_exits_for_real_at_the_checked_layers_only():
    engine = Engine(tiny_models.backbone("llama", 5))
    wave = engine.prefill([Request(str(i), p, 8) for i, p in enumerate(tiny_models.prompts(6))])
    written = wave.decode(ConfidenceExit(threshold=0.1, check=(2, 4)))
    assert {n for g in written for n in g.layers} == {2, 4, 5}
    for g in written:
        looks = sum(1 + (n > 2) for n in g.layers)  # before layer 2, and before layer 4 by those who stayed
        assert g.flops["heads"] == engine.costs.head * (len(g.layers) + looks)


@pytest.mark.parametrize("measure", ["top2", "top1", "entropy", "saturation"])
def test_the_share_rises_along_the_knob(measure):
    """Under a fixed text: more confidence asked for, more layers run by every token."""
    knob = ConfidenceExit.knob
    torch.manual_seed(0)
    views = []
    for layer in range(1, 8):
        states = torch.randn(2, 40, 6)
        views.append(
            FakeView(layer=layer, rows=40, before=states[0], hidden=states[1], logits=torch.randn(40, 9) * layer)
        )
    before = None
    shares = []
    for i in range(21):
        method = ConfidenceExit(
            threshold=knob.low + (knob.high - knob.low) * i / 20, measure=measure, check=tuple(range(1, 8))
        )
        alive, layers = torch.ones(40, dtype=torch.bool), torch.ones(40)
        for view in views:
            alive = alive & (method.route(view) != Action.EXIT)
            layers = layers + alive
        assert before is None or bool((layers >= before).all())
        before = layers
        shares.append(float(layers.mean()) / 8)
    assert shares[0] < 0.6 and shares[-1] > 0.98  # a float32 probability can be 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: ConfidenceExit(threshold=1.2), r"threshold must lie in \[-1, 1\], not 1.2"),
        (lambda: ConfidenceExit(threshold=float("nan")), "not nan"),
        (lambda: ConfidenceExit(measure="top3"), "top2, top1, entropy or saturation, not 'top3'"),
        (lambda: ConfidenceExit(decay="fast"), "none, paper or code, not 'fast'"),
        (lambda: ConfidenceExit(min_layers=0), "min_layers must be at least 1, not 0"),
        (lambda: ConfidenceExit(check=(0, 3)).validate(8), "before layer 0 of 8; layers 1 to 7"),
        (lambda: ConfidenceExit(check=(3, 8)).validate(8), "before layer 8 of 8"),
    ],
)
def test_bad_parameters_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
