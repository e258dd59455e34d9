"""Tables and sentences name what is enough by one rule."""

import numpy as np
import pytest
from record_factory import headlines_of, record

from dlbench.leaderboard.analysis.enough import Enough, SettingScores, enough
from dlbench.leaderboard.analysis.method_stats import summarise
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.data.views import build_views

N = 300
FULL = np.random.default_rng(0).uniform(0.4, 1, N)


def made(**methods):
    """Return records and scores of full depth and of methods: {budget: (total FLOPs, share of full that is kept)}."""
    rows = [("full", None, 1.0, 1.0, FULL)]
    for name, settings in methods.items():
        rows += [(name, budget, budget, total, FULL * kept) for budget, (total, kept) in settings.items()]
    records, scores = [], {}
    for name, budget, layers, total, values in rows:
        one = record(
            name,
            scores=values,
            full=FULL,
            run={"budget": budget},
            compute={"layer_share": layers, "flop_share_total": total},
            backbone={"layers": 16},
        )
        records.append(one)
        scores[one.key] = {f"{place:03}": float(value) for place, value in enumerate(values)}
    return records, scores


def tabled(records, scores):
    (view,) = build_views(build_tracks(records))
    return {one.label: one.enough[0.95] for one in summarise(ScoreMatrix(view, scores))}


def said(records, scores):
    return next((line for line in headlines_of(records, scores) if "95 % of full" in line), "")


SEQUENCES = {
    "down to the cheapest": ({0.25: (0.4, 1.0), 0.5: (0.6, 1.0), 0.75: (0.8, 1.0)}, 0.25),
    "to the first that fails": ({0.25: (0.4, 1.0), 0.5: (0.6, 0.9), 0.75: (0.8, 1.0)}, 0.75),
    "not at all": ({0.25: (0.4, 1.0), 0.5: (0.6, 1.0), 0.75: (0.8, 0.9)}, None),
    # In order of the FLOPs, not of the layers: here 75 % of the layers are cheaper than 50 %.
    "by FLOPs": ({0.5: (0.9, 0.9), 0.75: (0.8, 1.0)}, None),
    "by FLOPs the other way": ({0.5: (0.9, 1.0), 0.75: (0.8, 1.0)}, 0.75),
}


@pytest.mark.parametrize("case", SEQUENCES)
def test_table_and_sentence_name_the_same_setting(case):
    settings, layers = SEQUENCES[case]
    records, scores = made(static_skip=settings)
    assert tabled(records, scores)["static_skip"].layers == layers
    where = "by no method"
    if layers is not None:
        where = (
            f"by static_skip at {100 * settings[layers][0]:.0f} % of full's FLOPs ({100 * layers:.0f} % of the layers)"
        )
    assert (
        said(records, scores)
        == f"With all methods tested together, 95 % of full is surely kept {where} on nano_summary."
    )


def test_the_sentence_names_the_method_of_fewest_flops():
    records, scores = made(static_skip={0.5: (0.7, 1.0)}, static_exit={0.6: (0.6, 1.0)})
    assert "surely kept by static_exit at 60 % of full's FLOPs (60 % of the layers)" in said(records, scores)


@pytest.mark.parametrize(("kept", "layers"), [(0.5, None), (1.0, 0.5)])
def test_a_setting_that_missed_its_budget_is_part_of_the_sequence_at_what_it_cost(kept, layers):
    records, scores = made(static_skip={0.5: (0.6, 1.0), 0.75: (0.8, kept)})
    records[-1] = records[-1].model_copy(update={"status": "unreachable"})
    assert tabled(records, scores)["static_skip"].layers == layers
    where = "by no method" if layers is None else "by static_skip at 60 % of full's FLOPs (50 % of the layers)"
    assert where in said(records, scores)


def test_a_method_that_met_no_budget_is_named_at_what_it_cost():
    records, scores = made(static_skip={0.25: (0.6, 1.0)})
    compute = records[-1].compute.model_copy(update={"layer_share": 0.4})
    records[-1] = records[-1].model_copy(update={"status": "unreachable", "compute": compute})
    assert tabled(records, scores)["static_skip"] == Enough(0.4, 0.6, "")
    assert "by static_skip at 60 % of full's FLOPs (40 % of the layers)" in said(records, scores)


def test_the_best_of_many_is_not_named_by_luck():
    """Ten methods, none of which keeps 95 %: the rule of one method alone would name one in every third run."""
    rng = np.random.default_rng(1)
    named = {0.95: 0, 1 - 0.05 / 10: 0}
    for _ in range(60):
        full = np.ones(400)
        methods = [(rng.random(400) < 0.9499).astype(float) for _ in range(10)]
        for confidence in named:
            named[confidence] += any(
                enough([SettingScores(0.5, 0.5, one)], full, confidence=confidence).total for one in methods
            )
    assert named[1 - 0.05 / 10] <= 6 < 12 < named[0.95]


def test_of_settings_of_one_cost_the_one_of_most_layers_is_said():
    both = [SettingScores(0.5, 0.4, FULL), SettingScores(0.5, 0.45, FULL), SettingScores(0.7, None, FULL)]
    assert enough(both, FULL) == Enough(0.45, 0.5, "")
    assert enough(both[2:], FULL) == Enough(None, 0.7, "")
    assert enough([], FULL) == Enough(None, None, "not reached")
    assert enough(both, FULL, 0.99) == Enough(None, None, "needs 2,000 documents, there are 300")
