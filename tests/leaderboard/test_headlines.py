import numpy as np
import pytest
from record_factory import headlines_of, record, synthetic_run

RNG = np.random.default_rng(0)
BASE = np.clip(RNG.normal(0.6, 0.1, 100), 0, 1)


def made(*rows):
    """Return records and scores of (name, scores, task, budget, changes) rows."""
    records, scores = [], {}
    for name, values, task, budget, changes in rows:
        changes = {
            "run": {"budget": budget},
            "compute": {"layer_share": budget or 1.0},
            "backbone": {"layers": 16},
        } | changes
        one = record(name, scores=values, full=BASE, task=task, **changes)
        records.append(one)
        scores[one.key] = {str(place): float(value) for place, value in enumerate(values)}
    return records, scores


def test_families_are_summed_up_and_their_exceptions_named():
    rows = []
    for task in ("nano_math", "nano_summary"):
        for budget, lead in ((0.25, 0.05), (0.5, 0.1), (0.75, 0.0 if task == "nano_math" else 0.2)):
            noise = RNG.normal(0, 0.02, 100)
            rows += [
                ("static_skip", BASE + lead + noise - noise.mean(), task, budget, {}),
                ("static_exit", BASE, task, budget, {}),
            ]
    assert headlines_of(*made(*rows)) == [
        "static_skip beats static_exit in 5 of 6 comparisons, by 0.050 to 0.200; undecided on nano_math (75 %)."
    ]


def test_what_goes_the_other_way_is_named_too():
    rows = []
    for task, lead in (("nano_math", 0.1), ("nano_summary", 0.1), ("nano_d2t", -0.1)):
        rows += [("static_skip", BASE + lead, task, 0.5, {}), ("static_exit", BASE, task, 0.5, {})]
    (line,) = headlines_of(*made(*rows))
    assert line == "static_skip beats static_exit in 2 of 3 comparisons, by 0.100; loses to it on nano_d2t (50 %)."


def test_one_claim_is_its_own_sentence():
    (line,) = headlines_of(
        *made(("static_skip", BASE + 0.1, "nano_math", 0.5, {}), ("static_exit", BASE, "nano_math", 0.5, {}))
    )
    assert line.startswith("At 50 % of the layers, static_skip beats static_exit by 0.100 [")


def test_a_line_about_classes_says_who_spoke_for_them_and_how_often():
    rows = []
    for task, mean in (("nano_math", 0.2), ("nano_summary", 0.4)):
        rows += [
            ("static_skip", BASE + 0.1, task, 0.5, {"tune": {"n": 12, "mean": 0.3}}),
            ("unified_skip", BASE + 0.1, task, 0.5, {"tune": {"n": 12, "mean": mean}}),
            ("static_exit", BASE, task, 0.5, {}),
        ]
    line, *_ = headlines_of(*made(*rows))
    assert line == (
        "Skipping beats exiting in all 2 comparisons, by 0.100. Skipping is static_skip (1) and unified_skip (1), each "
        "time the best of static_skip and unified_skip on 12 documents of the tune part; exiting is static_exit alone."
    )


def test_those_who_lose_alike_share_a_line():
    dense = {"backbone": {"name": "nano-half", "layers": 8, "sha256": "0" * 64}, "run": {"budget": None}}
    rows = []
    for task in ("nano_math", "nano_summary"):
        rows += [
            ("static_skip", BASE - 0.2, task, 0.5, {}),
            ("hidden_router", BASE - 0.1, task, 0.5, {}),
            ("full", BASE, task, None, dense),
        ]
    assert headlines_of(*made(*rows)) == [
        "static_skip and hidden_router lose to the smaller dense nano-half in all 4 comparisons, by 0.100 to 0.200."
    ]


def test_what_surely_keeps_95_per_cent_and_what_closes_the_gap():
    (*_, enough, gap) = headlines_of(
        *made(
            ("full", BASE, "nano_math", None, {}),
            ("hidden_router", np.clip(BASE + 0.02, 0, 1), "nano_math", 0.5, {}),
            ("random_skip", BASE * 0.5, "nano_math", 0.5, {}),
            ("oracle_cross", BASE * 1.1, "nano_math", 0.5, {}),
            ("full", BASE, "nano_summary", None, {}),
            ("hidden_router", BASE * 0.9, "nano_summary", 0.5, {}),
        )
    )
    assert enough == (
        "With all methods tested together, 95 % of full is surely kept by hidden_router at 70 % of full's FLOPs "
        "(50 % of the layers) on nano_math; by no method on nano_summary."
    )
    assert gap.startswith("At half of the layers, the gap from random routing to the honest oracle is closed to 89 % [")


@pytest.mark.parametrize("tasks", [1, 4])
def test_a_whole_run_ends_with_a_dozen_lines(tasks):
    run = synthetic_run(documents=40, tasks=["nano_d2t", "nano_math", "nano_summary", "nano_translate"][:tasks])
    scores = {key: {one.id: one.score for one in samples} for key, samples in run.samples.items()}
    lines = headlines_of(run.records, scores)
    assert 6 <= len(lines) <= 14
    assert all(line.endswith(".") and len(line) < 500 for line in lines)
    oracles = [line for line in lines if line.startswith("What the oracle keeps")]
    assert headlines_of(run.records, {}) == oracles or tasks == 1
