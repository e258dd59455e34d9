import numpy as np
import pytest
from record_factory import record, synthetic_run

from dlbench.leaderboard.claims import claims

RNG = np.random.default_rng(0)
BASE = np.clip(RNG.normal(0.6, 0.1, 100), 0, 1)


def made(*pairs, **changes):
    """Return records and scores of (name, scores, changes) triples."""
    records, scores = [], {}
    for name, values, more in pairs:
        one = record(name, scores=values, full=BASE, **(changes | more))
        records.append(one)
        scores[one.key] = {str(place): float(value) for place, value in enumerate(values)}
    return records, scores


def test_clear_difference_is_stated_with_its_interval():
    (claim,) = claims(*made(("static_skip", BASE + RNG.normal(0.05, 0.02, 100), {}), ("static_exit", BASE, {})))
    assert claim.verdict == 1
    assert claim.n == 100
    low, high = f"{claim.difference.low:.3f}", f"{claim.difference.high:.3f}"
    estimate = f"{claim.difference.estimate:.3f}"
    assert claim.sentence == (
        f"At 50 % of the layers, skipping beats exiting by {estimate} [{low}, {high}] on nano_summary."
    )


def test_it_comes_out_the_other_way_round_just_as_plainly():
    (claim,) = claims(*made(("static_skip", BASE - RNG.normal(0.05, 0.02, 100), {}), ("static_exit", BASE, {})))
    assert claim.verdict == -1
    assert "skipping loses to exiting by 0.0" in claim.sentence


def test_no_difference_is_no_verdict():
    (claim,) = claims(*made(("static_skip", BASE + RNG.normal(0, 0.05, 100), {}), ("static_exit", BASE, {})))
    assert claim.verdict == 0
    assert "cannot be told apart" in claim.sentence
    assert "−" in claim.sentence


def test_lucky_difference_among_many_is_called_so():
    pairs = []
    for place, budget in enumerate(np.linspace(0.1, 0.9, 20)):
        shift = 0.011 if place == 0 else 0.0
        noise = RNG.normal(0, 0.05, 100)
        run = {"budget": float(budget)}
        pairs.append(("static_skip", BASE + shift + noise - noise.mean(), {"run": run}))
        pairs.append(("static_exit", BASE, {"run": run}))
    lucky = claims(*made(*pairs))[0]
    assert lucky.difference.excludes_zero
    assert lucky.verdict == 0
    assert lucky.sentence.endswith("among this many comparisons that may be chance.")


def test_unequal_realised_shares_are_said():
    (claim,) = claims(
        *made(
            ("static_skip", BASE, {"compute": {"layer_share": 0.5}}),
            ("static_exit", BASE, {"compute": {"layer_share": 0.4375}}),
        )
    )
    assert claim.condition == "At 50 % of the layers against 43.8 %"


def test_all_the_questions_are_asked():
    run = synthetic_run(documents=30, tasks=["nano_d2t"])
    scores = {key: {one.id: one.score for one in samples} for key, samples in run.samples.items()}
    asked = [(claim.subject, claim.other) for claim in claims(run.records, scores)]
    dense = "the smaller dense nano-half"
    assert asked == [
        *[("skipping", "exiting")] * 3,
        *[("skipping", dense), ("exiting", dense), ("the router", dense)],
        *[("the router", "its learned constant")] * 3,
        *[("the oracle", "the same choice among full-depth outputs")] * 3,
        *[("the oracle", "itself under other references")] * 3,
    ]


def test_different_documents_are_not_compared():
    records, scores = made(("static_skip", BASE, {}), ("static_exit", BASE, {}))
    scores[records[0].key].pop("7")
    (claim,) = claims(records, scores)
    assert claim.difference is None
    assert claim.verdict == 0
    assert "no comparison" in claim.sentence
    assert claims(records, {}) == []


def test_unreachable_rows_make_no_claims():
    assert claims(*made(("static_skip", BASE, {"status": "unreachable"}), ("static_exit", BASE, {}))) == []


@pytest.mark.parametrize(("kept", "word"), [(1.0, "keeps 100 % of full"), (0.5, "50 %")])
def test_crossed_oracle_is_compared_by_what_it_keeps(kept, word):
    said = claims(*made(("oracle", BASE, {}), ("oracle_cross", BASE * kept, {})))
    assert word in said[0].sentence
