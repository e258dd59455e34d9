"""The fixed sets: exactly the layers that the papers and methods.md name."""

import itertools

import pytest

from dlbench.method import Action
from dlbench.methods.full import Full
from dlbench.methods.static_exit import StaticExit
from dlbench.methods.static_skip import StaticSkip
from dlbench.methods.unified_skip import UnifiedSkip, exact, rounded

BUDGETS = (0.25, 0.5, 0.75, 1.0)


@pytest.mark.parametrize(
    ("depth", "speedup", "kept"),
    [
        (24, 2, {*range(0, 21, 2), 23}),
        (24, 4, {0, 4, 8, 12, 16, 23}),
        (32, 3, {0, 3, 6, 9, 12, 15, 18, 21, 24, 31}),
        (32, 4, {0, 4, 8, 12, 16, 20, 24, 31}),
        (30, 5, {0, 6, 12, 18, 24, 29}),
    ],
)
def test_unified_skip_reproduces_the_vectors(depth, speedup, kept):
    method = UnifiedSkip(speedup=speedup)
    assert method.layers(depth) == kept
    assert len(kept) == depth // speedup
    method.validate(depth)


def test_unified_skip_names_the_rule_that_it_takes():
    half, quarter, most, none = (UnifiedSkip().at(budget, 16) for budget in (0.5, 0.25, 0.75, 1.0))
    assert (half.rule, half.speedup) == ("exact", 2) and half.layers(16) == exact(16, 2)
    assert (quarter.rule, quarter.speedup) == ("exact", 4)
    assert most.rule == none.rule == "rounded"  # below a speed-up of 2 the exact rule is a prefix
    assert most.layers(16) == rounded(16, 12) and none.layers(16) == frozenset(range(16))
    assert UnifiedSkip().at(0.1, 16).rule == "rounded"  # n = 1 would divide by zero
    assert UnifiedSkip().at(0.07, 16).layers(16) == {0}


@pytest.mark.parametrize("depth", [2, 3, 7, 16, 24])
def test_the_rounded_rule_spreads_evenly_and_keeps_both_ends(depth):
    for count in range(2, depth + 1):
        kept = sorted(rounded(depth, count))
        assert len(kept) == count and kept[0] == 0 and kept[-1] == depth - 1
        gaps = {b - a for a, b in itertools.pairwise(kept)}
        assert max(gaps) - min(gaps) <= 1


def test_static_skip_at_half_is_the_papers_set():
    assert StaticSkip().layers(24) == set(range(0, 23, 2))
    assert StaticSkip().at(0.5, 24).layers(24) == set(range(0, 23, 2))
    assert StaticSkip(share=0.25).layers(16) == {0, 4, 8, 12}
    assert StaticSkip(share=0.75).layers(16) == {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14}
    assert StaticSkip(only=(3, 1)).layers(4) == {1, 3}


def test_static_exit_keeps_the_first_layers():
    assert StaticExit(share=0.25).layers(16) == {0, 1, 2, 3}
    assert StaticExit().at(0.75, 24).layers(24) == set(range(18))
    assert StaticExit(share=0.01).layers(16) == {0}


@pytest.mark.parametrize("method", [StaticSkip(), StaticExit(), UnifiedSkip()])
@pytest.mark.parametrize("depth", [5, 16, 24])
def test_budgets_are_met_within_half_a_layer(method, depth):
    shares = []
    for budget in BUDGETS:
        made = method.at(budget, depth)
        made.validate(depth)
        assert type(made).from_params(made.params()) == made
        layers = made.layers(depth)
        assert made.live(depth) == layers and made.scope == "static"
        shares.append(len(layers) / depth)
        if not (isinstance(made, UnifiedSkip) and made.rule == "exact"):  # that one rounds down
            assert abs(shares[-1] - budget) <= 0.5 / depth + 1e-9
        else:
            assert budget - 1 / depth < shares[-1] <= budget
    assert shares == sorted(shares)


@pytest.mark.parametrize("cls", [StaticSkip, StaticExit, UnifiedSkip])
def test_the_share_rises_along_the_knob(cls):
    knob = cls.knob
    values = [knob.low + (knob.high - knob.low) * i / 40 for i in range(1, 41)]
    more = {"rule": "rounded"} if cls is UnifiedSkip else {}
    shares = [len(cls(**{knob.name: v}, **more).layers(16)) for v in values]
    assert shares == sorted(shares) and shares[0] < shares[-1] == 16


def test_full_runs_everything():
    assert Full().route(None) == Action.RUN and Full().scope == "static" and Full().live(7) is None
    assert Full().params() == {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StaticSkip(share=0), "share must lie in .0, 1., not 0"),
        (lambda: StaticSkip(share=1.5), "not 1.5"),
        (lambda: StaticSkip(share=float("nan")), "not nan"),
        (lambda: StaticExit(share=-0.1), "share must lie"),
        (lambda: UnifiedSkip(speedup=0.5), "speedup must be at least 1, not 0.5"),
        (lambda: UnifiedSkip(speedup=float("nan")), "not nan"),
        (lambda: UnifiedSkip(speedup=1.5), "integer speed-up, not 1.5; use rule=rounded"),
        (lambda: UnifiedSkip(rule="best"), "rule must be exact or rounded, not 'best'"),
        (lambda: UnifiedSkip(speedup=20).validate(16), "leaves 0 of 16"),
        (lambda: UnifiedSkip(speedup=16).validate(16), "leaves 1 of 16"),
        (lambda: StaticSkip(only=(0, 16)).validate(16), r"\[0, 16\] do not fit a backbone of 16"),
        (lambda: StaticSkip(only=(-1, 2)).validate(16), r"\[-1, 2\] do not fit"),
        (lambda: StaticSkip.from_params({"keep": 8}), "no parameter 'keep'; there is only, share"),
        (lambda: Full.from_params({"x": 1}), "no parameter 'x'; there is none"),
    ],
)
def test_bad_parameters_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
