import numpy as np
import pytest
from record_factory import claims_of, record, synthetic_run

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
    (claim,) = claims_of(*made(("static_skip", BASE + RNG.normal(0.05, 0.02, 100), {}), ("static_exit", BASE, {})))
    assert claim.verdict == 1
    assert claim.n == 100
    low, high = f"{claim.difference.low:.3f}", f"{claim.difference.high:.3f}"
    estimate = f"{claim.difference.estimate:.3f}"
    assert claim.sentence == (
        f"At 50 % of the layers, static_skip beats static_exit by {estimate} [{low}, {high}] on nano_summary."
    )


def test_it_comes_out_the_other_way_round_just_as_plainly():
    (claim,) = claims_of(*made(("static_skip", BASE - RNG.normal(0.05, 0.02, 100), {}), ("static_exit", BASE, {})))
    assert claim.verdict == -1
    assert "static_skip loses to static_exit by 0.0" in claim.sentence


def test_no_difference_is_no_verdict():
    (claim,) = claims_of(*made(("static_skip", BASE + RNG.normal(0, 0.05, 100), {}), ("static_exit", BASE, {})))
    assert claim.verdict == 0
    assert "cannot be told apart" in claim.sentence
    assert "−" in claim.sentence


def test_lucky_difference_among_many_is_called_so():
    pairs = []
    for place, budget in enumerate(np.linspace(0.1, 0.9, 20)):
        shift = 0.048 if place == 0 else 0.0
        noise = RNG.normal(0, 0.2, 100)
        run = {"budget": float(budget)}
        pairs.append(("static_skip", BASE + shift + noise - noise.mean(), {"run": run}))
        pairs.append(("static_exit", BASE, {"run": run}))
    lucky = claims_of(*made(*pairs))[0]
    assert lucky.difference.excludes_zero
    assert lucky.verdict == 0
    assert lucky.sentence.endswith("among this many comparisons that may be chance.")


def test_unequal_realised_shares_are_said():
    (claim,) = claims_of(
        *made(
            ("static_skip", BASE, {"compute": {"layer_share": 0.5}}),
            ("static_exit", BASE, {"compute": {"layer_share": 0.4375}}),
        )
    )
    assert claim.condition == "At 50 % of the layers against 43.8 %"


def test_all_the_questions_are_asked():
    run = synthetic_run(documents=30, tasks=["nano_d2t"])
    scores = {key: {one.id: one.score for one in samples} for key, samples in run.samples.items()}
    asked = [(claim.subject, claim.other) for claim in claims_of(run.records, scores)]
    dense = "the smaller dense nano-half"
    controls = ("random_skip", "unified_skip")
    assert asked == [
        *[("static_skip", "static_exit")] * 3,
        *[("static_skip", dense), ("static_exit", dense), ("hidden_router", dense)],
        *[("hidden_router", "its learned constant")] * 3,
        *[(who, control) for control in controls for who in ("static_skip", "hidden_router") for _ in range(3)],
        *[("the oracle", "the same choice among full-depth outputs")] * 3,
        *[("the oracle", "itself under other references")] * 3,
    ]


def test_different_documents_are_not_compared():
    records, scores = made(("static_skip", BASE, {}), ("static_exit", BASE, {}))
    scores[records[0].key].pop("7")
    (claim,) = claims_of(records, scores)
    assert claim.difference is None
    assert claim.verdict == 0
    assert "no comparison" in claim.sentence
    assert claims_of(records, {}) == []


def test_unreachable_rows_make_no_claims_of_their_budget():
    assert claims_of(*made(("static_skip", BASE, {"status": "unreachable"}), ("static_exit", BASE, {}))) == []
    assert claims_of(*made(("static_skip", BASE, {}), ("static_exit", BASE, {"status": "unreachable"}))) == []


def test_unreachable_rows_are_compared_at_what_they_ran_at():
    missed = {"status": "unreachable", **layers(0.41, 0.25)}
    rows = [("random_skip", BASE - 0.1, layers(0.4, 0.4)), ("random_skip", BASE - 0.2, layers(0.2, 0.2))]
    (claim,) = claims_of(*made(("static_skip", BASE, missed), *rows))
    assert claim.sentence.startswith("At 41 % of the layers, static_skip beats random_skip by 0.100")
    assert claim.budget == 0.41


@pytest.mark.parametrize(("kept", "word"), [(1.0, "keeps 100 % of full"), (0.5, "50 %")])
def test_crossed_oracle_is_compared_by_what_it_keeps(kept, word):
    said = claims_of(*made(("oracle", BASE, {}), ("oracle_cross", BASE * kept, {})))
    assert word in said[0].sentence


def layers(share, budget=0.5):
    return {"compute": {"layer_share": share}, "run": {"budget": budget}}


def test_controls_are_met_at_the_realised_share():
    (claim,) = claims_of(
        *made(
            ("static_skip", BASE, layers(0.45)),
            ("random_skip", BASE - 0.2, layers(0.3, 0.25)),
            ("random_skip", BASE - 0.1, layers(0.5, 0.5)),
        )
    )
    # Three quarters of the way from −0.2 to −0.1.
    assert claim.difference.estimate == pytest.approx(0.125)
    assert claim.condition == "At 45 % of the layers"


def test_control_out_of_reach_is_not_met():
    assert claims_of(*made(("static_skip", BASE, layers(0.5)), ("random_skip", BASE, layers(0.4)))) == []
    assert len(claims_of(*made(("static_skip", BASE, layers(0.5)), ("random_skip", BASE, layers(0.48))))) == 1


def test_controls_are_met_under_the_same_kv_policy_where_they_have_any():
    """The router evicts, the random control projects: no pair. What is static has no use for a policy."""
    evict = ("hidden_router", BASE + 0.1, {"run": {"kv": "evict"}})
    assert claims_of(*made(evict, ("random_skip", BASE, {}))) == []
    assert claims_of(*made(evict, ("unified_skip", BASE, {}))) == []  # nothing says that it is static
    (claim,) = claims_of(*made(evict, ("unified_skip", BASE, {"method": {"scope": "static"}})))
    assert claim.difference.estimate == pytest.approx(0.1)
    (claim,) = claims_of(*made(evict, ("random_skip", BASE, {"run": {"kv": "evict"}})))
    assert claim.difference.estimate == pytest.approx(0.1)


def test_fit_seeds_are_one_row():
    seeds = [
        ("hidden_router", BASE + 0.02 + off, {"run": {"seed": seed}, "method": {"params": {"fixed_input": False}}})
        for seed, off in enumerate((-0.03, 0.0, 0.03))
    ]
    constant = ("hidden_router", BASE, {"method": {"params": {"fixed_input": True}}})
    (claim,) = claims_of(*made(*seeds, constant))
    assert claim.difference.estimate == pytest.approx(0.02)
    assert claim.difference.method.endswith("3 fit seeds")
    assert claim.verdict == 0


def of_classes(*members, budget=0.5):
    """Claims of (name, lead on the scored documents, mean on the tune part or None) members."""
    rows = []
    for name, lead, mean in members:
        noise = RNG.normal(0, 0.02, 100)
        tune = {} if mean is None else {"tune": {"n": 12, "mean": mean}}
        rows.append((name, BASE + lead + noise - noise.mean(), layers(0.5, budget) | tune))
    return [claim for claim in claims_of(*made(*rows)) if claim.other != "unified_skip"]


def test_a_class_speaks_through_the_member_that_is_best_on_the_tune_part_not_on_the_scored_documents():
    (claim,) = of_classes(
        ("static_skip", 0.1, 0.3), ("unified_skip", 0.0, 0.4), ("static_exit", -0.05, 0.2), ("calm", 0.2, 0.1)
    )
    assert claim.family == ("skipping", "exiting")
    assert claim.sentence.startswith(
        "At 50 % of the layers, skipping (unified_skip) beats exiting (static_exit) by 0.05"
    )
    assert claim.sentence.endswith(
        "Skipping is the best of static_skip and unified_skip on 12 documents of the tune part; "
        "exiting is the best of calm and static_exit on 12 documents of the tune part."
    )


def test_a_class_of_one_member_is_named_beside_one_of_several():
    (claim,) = of_classes(("static_skip", 0.1, 0.3), ("unified_skip", 0.0, 0.2), ("calm", 0.0, None))
    assert (claim.subject, claim.other) == ("skipping (static_skip)", "exiting (calm)")
    assert claim.sentence.endswith("exiting is calm alone.")


def test_two_methods_alone_are_compared_by_their_names():
    (claim,) = of_classes(("unified_skip", 0.1, None), ("calm", 0.0, None))
    assert (claim.subject, claim.other, claim.speakers) == ("unified_skip", "calm", None)


def test_nothing_is_claimed_of_a_class_whose_best_is_not_known():
    """Then the paper's two methods are compared by their names, as they were in records from before."""
    (claim,) = of_classes(("static_skip", 0.1, 0.5), ("unified_skip", 0.0, None), ("static_exit", 0.0, 0.3))
    assert (claim.subject, claim.other, claim.speakers) == ("static_skip", "static_exit", None)


def test_fit_seeds_speak_by_their_mean_on_the_tune_part():
    seeds = [
        ("sleb", BASE + 0.1, {"run": {"seed": seed}, "fit": {"seed": seed}, "tune": {"n": 12, "mean": mean}})
        for seed, mean in enumerate((0.1, 0.6))
    ]
    rest = [("static_skip", BASE, {"tune": {"n": 12, "mean": 0.4}}), ("static_exit", BASE - 0.1, {})]
    (claim,) = claims_of(*made(*seeds, *rest))
    assert claim.subject == "skipping (static_skip)"
