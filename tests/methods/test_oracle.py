"""The oracle's candidates: published, unique, and fit for the backbone; the choosing is tested in test_ceiling.py."""

import pytest

from dlbench.evaluation.settings import oracle_settings
from dlbench.method import Candidate, Oracle
from dlbench.methods.oracle import SequenceOracle


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 16, 24, 32])
@pytest.mark.parametrize("randoms", [0, 1, 5])
def test_candidates_are_unique_and_fit(depth, randoms):
    oracle = SequenceOracle(randoms=randoms)
    oracle.validate(depth)
    found = oracle.candidates(depth)
    assert len({c.layers for c in found}) == len({c.name for c in found}) == len(found)
    for c in found:
        assert c.layers == tuple(sorted(set(c.layers))) and c.layers[0] >= 0 and c.layers[-1] < depth
    assert [c.name for c in found if len(c.layers) == depth] == ["full"]


def test_the_published_set_at_sixteen_layers():
    found = {c.name: c.layers for c in SequenceOracle().candidates(16)}
    assert found["prefix-4"] == (0, 1, 2, 3)
    assert found["even-4"] == (0, 5, 10, 15)
    assert found["middle-8"] == (0, 1, 2, 3, 12, 13, 14, 15)
    assert found["full"] == tuple(range(16))
    assert set(found) == {
        *(f"{kind}-{n}" for kind in ("prefix", "even", "middle") for n in (4, 8, 12)),
        *(f"random-{n}.0" for n in (4, 8, 12)),
        "full",
    }
    assert all(len(layers) == int(name.split("-")[1].split(".")[0]) for name, layers in found.items() if name != "full")
    assert all(layers[0] == 0 for name, layers in found.items() if name.startswith("random"))


def test_random_candidates_follow_the_seed():
    same, other = (SequenceOracle(randoms=3, seed=seed).candidates(16) for seed in (0, 1))
    assert SequenceOracle(randoms=3).candidates(16) == same != other
    only = SequenceOracle(families=("prefix",)).candidates(16)
    assert [c.name for c in only] == ["full", "prefix-4", "prefix-8", "prefix-12"]


@pytest.mark.parametrize("depth", [2, 5, 16])
def test_each_candidate_runs_as_a_static_method_beside_as_many_full_outputs(depth):
    oracle = SequenceOracle()
    candidates = oracle.candidates(depth)
    settings = oracle_settings(oracle, depth, 0)
    shown = [s for s in settings if s.purpose == "candidate"]
    assert {s.candidate for s in shown} == set(candidates) and len(shown) == len(candidates)
    for s in shown:
        ran = s.method.live(depth)
        assert set(s.candidate.layers) == (set(range(depth)) if ran is None else ran)
    fulls = [s for s in settings if s.name == "full"]
    assert [s.sample for s in fulls] == [None, *range(1, len(candidates))]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SequenceOracle(families=("prefix", "odd")), "no candidate family 'odd'; there is even, middle"),
        (lambda: SequenceOracle(randoms=-1), "randoms must not be negative, got -1"),
        (lambda: _given().validate(4), "the oracle has no candidates"),
        (lambda: _given((0, 4)).validate(4), "candidate 'c0' does not fit a backbone of 4 layers"),
        (lambda: _given(()).validate(4), "candidate 'c0' does not fit"),
        (lambda: _given((0, 1), (2,), (0, 1)).validate(4), "candidates 'c0' and 'c2' share their name or their layers"),
    ],
)
def test_bad_candidates_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()


def _given(*sets):
    class Given(Oracle):
        def candidates(self, depth):
            return [Candidate(f"c{i}", layers) for i, layers in enumerate(sets)]

    return Given()
