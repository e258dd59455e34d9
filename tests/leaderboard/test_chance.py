"""Tasks where guessing scores: what is kept, enough and under a curve is above chance, in records and on boards."""

import numpy as np
import pytest
from record_factory import headlines_of, record

from dlbench.leaderboard.analysis.enough import SettingScores, enough
from dlbench.leaderboard.analysis.method_stats import summarise
from dlbench.leaderboard.analysis.score_matrix import ScoreMatrix
from dlbench.leaderboard.analysis.view_stats import standings
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.data.views import build_views
from dlbench.stats import compute_at, retained
from dlbench.stats.frontier import Point

N = 2000
CHANCE = 0.25
RNG = np.random.default_rng(0)
FULL = (np.arange(N) < 0.5 * N).astype(float)  # 0.5: half of what lies above chance is 0.375


def losing(share):
    """Full depth's answers, of which that share of the right ones is lost."""
    return np.where(np.arange(N) < 0.5 * N * (1 - share), 1.0, 0.0)


def made(*settings, full=FULL, chance=CHANCE):
    """Return records and scores of full depth and of a method's (budget, scores)."""
    rows = [("full", None, full), *(("static_skip", budget, scores) for budget, scores in settings)]
    records, scores = [], {}
    for name, budget, values in rows:
        kept = retained(values, full, chance=chance, resamples=500)
        one = record(
            name,
            scores=values,
            task="arc",
            run={"budget": budget},
            compute=dict.fromkeys(("layer_share", "flop_share_total", "flop_share_decode"), budget or 1.0),
            backbone={"layers": 16},
            quality={
                "full_mean": float(full.mean()),
                "retained": kept and kept.estimate,
                "retained_ci95": kept and (kept.low, kept.high),
            },
        )
        one = one.model_copy(update={"task": one.task.model_copy(update={"chance": chance})})
        records.append(one)
        scores[one.key] = {f"{place:04}": float(value) for place, value in enumerate(values)}
    return records, scores


def field(records, scores):
    (view,) = build_views(build_tracks(records))
    return ScoreMatrix(view, scores)


def test_a_board_keeps_what_its_records_keep():
    records, scores = made((0.5, losing(0.3)), (0.25, losing(0.5)))
    found = field(records, scores)
    for entry in found.entries:
        ((estimate, low, high),) = found.kept([found.rows[entry.id]])
        assert estimate == pytest.approx(entry.retained)
        if entry.role == "method":
            assert (low, high) == pytest.approx(entry.bounds, abs=2e-3)
    kept = {entry.budget: entry.retained for entry in found.entries}
    assert kept[0.25] == pytest.approx(0.0) and kept[0.5] == pytest.approx(0.4)


def test_the_area_of_guessing_is_nothing():
    records, scores = made((0.2, losing(0.5)), (0.999, losing(0.5)))
    (summary,) = summarise(field(records, scores))
    assert summary.area.estimate == pytest.approx(0.0, abs=0.001)


def test_enough_is_above_chance_in_tables_and_sentences():
    """97 % of 0.5 are 94 % of what full depth scores above chance."""
    records, scores = made((0.5, losing(0.03)))
    (summary,) = summarise(field(records, scores))
    assert (summary.enough[0.95].total, summary.enough[0.95].reason) == (None, "not reached")
    assert any("by no method" in line for line in headlines_of(records, scores))
    unguessed, same = made((0.5, losing(0.03)), chance=0.0)
    (summary,) = summarise(field(unguessed, same))
    assert summary.enough[0.95].total == 0.5
    assert any(
        "by static_skip at 50 % of full's FLOPs (50 % of the layers)" in line for line in headlines_of(unguessed, same)
    )


def test_enough_is_the_same_of_scores_and_of_shares():
    for lost in (0.0, 0.004, 0.01, 0.02, 0.03):
        method = np.where(RNG.permutation(N) < lost * N, 0.0, FULL)
        raw = enough([SettingScores(0.5, 0.5, method)], FULL, chance=CHANCE)
        shares = [(one - CHANCE) / (FULL.mean() - CHANCE) for one in (method, FULL)]
        ends = ((0 - CHANCE) / (0.5 - CHANCE), (1 - CHANCE) / (0.5 - CHANCE))
        assert enough([SettingScores(0.5, 0.5, shares[0])], shares[1], bounds=ends) == raw
    assert raw.total is None


def test_full_depth_that_guesses_is_no_measure():
    full = (np.arange(N) < 0.2 * N).astype(float)
    records, scores = made((0.5, full), full=full)
    found = compute_at([Point(0.5, full)], full, chance=CHANCE)
    assert (found.cost, found.reason) == (None, "full depth scores nothing above chance")
    (view,) = build_views(build_tracks(records))
    assert standings(view, scores).bounds == {}
    assert "by no method" in headlines_of(records, scores)[-1]


@pytest.mark.parametrize("lost", [0.0, 0.03])
def test_without_chance_nothing_changes(lost):
    records, scores = made((0.5, losing(lost)), chance=0.0)
    found = field(records, scores)
    for entry, one in zip(found.entries, (FULL, losing(lost)), strict=True):
        assert (found.rows[entry.id] == one / FULL.mean()).all()
