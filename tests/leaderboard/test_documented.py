"""What docs/statistics.md, board.md and methods.md say is what the code does: each sentence read here is tried."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from record_factory import record
from scipy.special import ndtri
from scipy.stats import t

from dlbench.data.rows.sources import merged
from dlbench.leaderboard import workers
from dlbench.leaderboard.analysis.against import against, verdict
from dlbench.leaderboard.analysis.method_classes import CLASSES, speaker
from dlbench.leaderboard.analysis.method_stats import summarise
from dlbench.leaderboard.analysis.ranking import RankedPlace
from dlbench.leaderboard.analysis.score_matrix import MOST_COMPARED, ScoreMatrix
from dlbench.leaderboard.columns.column import TableInfo
from dlbench.leaderboard.columns.row_columns import row_columns
from dlbench.leaderboard.data.paired_scores import SLACK, ScoredEntry, matched
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.data.views import build_views
from dlbench.leaderboard.pages import sample_pages
from dlbench.method import Action
from dlbench.records.schema import Record
from dlbench.registry import methods as registry
from dlbench.running.budgets import COUNT, FIXED, HIGH, LOW, RULE, left_out
from dlbench.running.tune_part import DOCUMENTS
from dlbench.stats import (
    MOST_PAIRED,
    RESAMPLES,
    Point,
    Rank,
    Resample,
    Table,
    bounds,
    compute_at,
    corrected,
    gap_closed,
    minimum_detectable,
    paired_difference,
    pareto_probability,
    reach,
    retained,
)
from dlbench.stats.table import FEW
from dlbench.stats.unseen import effective_mass, level_of, unseen_share

DOCS = Path(__file__).parents[2] / "docs"
TEXT, BOARD, METHODS = (
    (DOCS / name).read_text(encoding="utf-8") for name in ("statistics.md", "board.md", "methods.md")
)


def table(text, heading):
    """Return the rows of the first Markdown table under a heading row, as lists of cells."""
    lines = text[text.index(heading) :].splitlines()[2:]
    rows = lines[: lines.index("")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


ANSWERS = dict(table(TEXT, "| question | answer |"))
N = 200
RNG = np.random.default_rng(0)
FULL = RNG.uniform(0.4, 1, N)


def said(question, *words):
    """Return the answer to a question of the docs, checked to hold these words."""
    (answer,) = [answer for asked, answer in ANSWERS.items() if asked == question]
    for some in words:
        assert some in answer
    return answer


def test_every_question_is_tried_here():
    source = Path(__file__).read_text(encoding="utf-8")
    assert [question for question in ANSWERS if f'"{question}"' not in source] == []


def test_how_much_better():
    said(
        "How much better is A than B?",
        "**binary scores**: Tango's",
        "an effective mass below 100**: the empirical-likelihood score interval",
        "**Otherwise**: BCa of the paired bootstrap, 10,000 draws",
        "(Σ|d|)² ÷ Σd²",
        "of 200 documents that differ by 0.02 or so and two that collapse it is about 18, not 200",
    )
    assert (bounds.DENSE, RESAMPLES) == (100, 10_000)
    assert paired_difference(FULL > 0.7, FULL > 0.6).method == "Tango score"
    masses = RNG.normal(0, 0.02, (500, N))
    masses[:, :2] = -RNG.uniform(0.5, 1, (500, 2))
    assert effective_mass(masses).mean() == pytest.approx(18, abs=1)
    for count, method in ((99, "empirical-likelihood score"), (100, "bootstrap BCa")):
        deviating = np.where(np.arange(N) < count, np.where(np.arange(N) % 2, 0.1, -0.1), 0.0)
        assert effective_mass(deviating[None])[0] == pytest.approx(count)
        assert paired_difference(0.5 + deviating, np.full(N, 0.5), bounds=(0, 1)).method == method


def test_what_was_not_in_the_sample():
    said(
        "And what was not in the sample?",
        "a share of z² ÷ (n + z²) of the documents, 1.9 % of 200",
        "For binary scores that all tie, the score interval leaves open the same share",
        "A source deviates less than a single document, by the ratio of the quadratic means that were observed",
        "half as much for four documents that have nothing in common",
    )
    z = 1.959964
    assert unseen_share(N, 0.95) == pytest.approx(z**2 / (N + z**2)) == pytest.approx(0.019, abs=5e-4)
    ties = paired_difference(np.ones(N), np.ones(N))
    assert ties.high == pytest.approx(unseen_share(N, 0.95))
    hair = paired_difference(FULL + RNG.normal(0, 1e-4, N), FULL, bounds=(0, 1))
    assert hair.high == pytest.approx(ties.high, abs=1e-4)
    noise = RNG.normal(0, 1e-4, N)
    sources = paired_difference(FULL + noise, FULL, bounds=(0, 1), clusters=[i // 4 for i in range(N)])
    calm = noise.reshape(-1, 4).mean(axis=1).std() / noise.std()
    assert calm == pytest.approx(0.5, abs=0.1)
    assert sources.high == pytest.approx(calm * unseen_share(N // 4, 0.95), rel=0.02)
    together = np.repeat(noise[: N // 4], 4)
    whole = paired_difference(FULL + together, FULL, bounds=(0, 1), clusters=[i // 4 for i in range(N)])
    assert whole.high == pytest.approx(unseen_share(N // 4, 0.95), abs=1e-3)


def test_what_is_kept():
    said(
        "What does a method keep of full depth?", "ratio of means above chance", "exactly 1 for full beside itself only"
    )
    kept = retained(0.9 * FULL, FULL, chance=0.25)
    assert kept.estimate == pytest.approx((0.9 * FULL.mean() - 0.25) / (FULL.mean() - 0.25))
    assert retained(FULL, FULL, same=True).low == 1 > retained(FULL, FULL).low


def test_is_it_real_and_are_there_many():
    said("Is the difference real?", "paired permutation test", "McNemar's exact test", "else 10,000 draws")
    said("Many comparisons?", "Benjamini–Hochberg at 5 %", "only where both the corrected test and the interval say so")
    rows = [FULL, FULL + 0.003 + RNG.normal(0, 0.001, N)]
    pairs = Table(rows, bounds=(0, 1)).pairs
    assert pairs.corrected[0, 1] < 0.001
    assert not pairs.different[0, 1]  # since the interval holds what was not seen
    assert pairs.corrected[0, 1] == corrected([pairs.p[0, 1]])[0]


def test_better_than_a_control():
    said(
        "Better than a control?",
        "A row is ahead of it only if it is ahead of each variant, and behind only if it is behind each",
        "the p value is the greatest of them, the difference shown the least favourable",
        "None is picked by how it does on the test documents",
    )
    row, *variants = (ScoredEntry((), tuple(map(str, range(N))), (FULL - less)[None]) for less in (0.0, 0.1, 0.2, -0.1))
    difference, p = against(row, variants[:2])
    assert (difference.estimate, verdict(difference, p)) == (pytest.approx(0.1), 1)
    assert verdict(*against(row, variants)) == 0


def test_one_class_and_another():
    answer = said(
        "Is one class of methods better than another?",
        "the one that scores best at that budget on up to 8 documents of the tune part",
        "where the choice is not known (records from before), single methods are compared, not classes",
    )
    named = [re.findall(r"`(\w+)`", some) for some in re.findall(r"\((`static[^)]*)\)", answer)]
    assert named == [list(members) for members in CLASSES.values()] and DOCUMENTS == 8
    tuned = [record(name, tune={"n": 8, "mean": mean}) for name, mean in (("static_skip", 0.2), ("sleb", 0.3))]
    entries = [ScoredEntry((row,), (), None) for row in build_tracks(tuned)[0].rows]
    best = speaker(entries)
    assert best is not None and best.entry.row.label == "sleb" and best.documents == 8
    unknown = [ScoredEntry((row,), (), None) for row in build_tracks([tuned[0], record("sleb")])[0].rows]
    assert speaker(unknown) is None


def test_budgets_that_fit_the_model():
    (text,) = [line for line in METHODS.splitlines() if "**Budgets that fit the model.**" in line]
    assert f"`{RULE}` writes texts for at most {DOCUMENTS} documents" in text
    assert f"without {', '.join(map(str, left_out(30)[:8]))}, … layers" in text
    assert "the fewest layers that keep 98 % of full depth's quality, and the fewest that keep a third" in text
    assert (HIGH, LOW, COUNT, FIXED) == (0.98, 1 / 3, 5, (0.25, 0.5, 0.75))


def test_what_could_have_been_found():
    said("What could have been found?", "at 80 % power", "no less than what the unseen leaves open")
    a, b = FULL + RNG.normal(0, 0.3, N), FULL
    error = (a - b).std(ddof=1) / N**0.5
    assert minimum_detectable(a, b, bounds=(0, 1)) == pytest.approx((1.959964 + 0.841621) * error, rel=1e-5)
    hair = FULL + RNG.normal(0, 1e-4, N)
    assert minimum_detectable(hair, FULL, bounds=(0, 1)) == pytest.approx(unseen_share(N, 0.95), rel=0.01)


def test_sources_and_seeds():
    said(
        "Documents that share a source?",
        "the source is resampled, or swapped, with all its documents",
        "Documents that ask the same are of one source, and sources that share a question are one",
        "Student's t of (Σ size)² ÷ Σ size² sources, 2.5 at the least",
    )
    assert merged(["x", "y", None], [b"1", b"1", b"2"]) == ["x", "x", None]
    lopsided = (1 + level_of(np.r_[np.zeros(10**6, dtype=int), 1], 0.95)) / 2
    assert ndtri(lopsided) == pytest.approx(t.ppf(0.975, 2.5), rel=1e-3)
    said(
        "Several fit seeds?", "added to the bounds by the square-and-add rule (MOVER) with Student's t", "none is added"
    )
    means = Resample(4, clusters=list("aabb"), resamples=50).means([0.0, 0.0, 1.0, 1.0])
    assert set(means.ravel()) == {0.0, 0.5, 1.0}
    assert paired_difference([FULL], FULL - 0.2).method == paired_difference(FULL, FULL - 0.2).method
    assert paired_difference([FULL, FULL + 0.01], FULL - 0.2).method.endswith("2 fit seeds")


def test_a_compute_nobody_ran():
    said("Quality at a compute nobody ran?", "linear between neighbouring settings", "at most 0.03 beyond it")
    assert SLACK == 0.03

    def entry(share, scores):
        (track,) = build_tracks([made("random_skip", share, share, scores)])
        return ScoredEntry(track.rows, tuple(map(str, range(N))), np.atleast_2d(scores))

    controls = [entry(0.4, FULL - 0.2), entry(0.6, FULL)]
    (half,) = matched(entry(0.5, FULL), controls)
    assert half.scores[0] == pytest.approx(FULL - 0.1)
    (end,) = matched(entry(0.62, FULL), controls)
    assert end.scores[0] == pytest.approx(FULL)
    assert matched(entry(0.64, FULL), controls) == ()


def made(name, share, total, scores, budget=0.5):
    return record(
        name,
        scores=scores,
        full=FULL,
        run={"budget": budget},
        compute={"layer_share": share, "flop_share_total": total, "flop_share_decode": total},
    )


def summary_of(*settings):
    """Return the summary of a method from its (budget, FLOPs, scores)."""
    (summary,) = summaries_of(static_skip=settings)
    return summary


def summaries_of(**methods):
    """Return the summaries of methods, each from its (budget, FLOPs, scores)."""
    settings = [(name, *one) for name, some in methods.items() for one in some]
    records: list[Record] = [made("full", 1.0, 1.0, FULL, None)]
    records += [made(name, budget, total, scores, budget) for name, budget, total, scores in settings]
    rows = [FULL, *(scores for *_, scores in settings)]
    scores = {
        one.key: {f"{place:03}": float(value) for place, value in enumerate(row)}
        for one, row in zip(records, rows, strict=True)
    }
    (view,) = build_views(build_tracks(records))
    return summarise(ScoreMatrix(view, scores))


def test_area():
    said(
        "Area under a curve",
        "over decoding FLOPs, divided by the width, as a share of full depth's quality above chance",
        "over one span, the costs that all of them cover",
        "A method that never costs less than full depth has none",
        "With a single budget the area is what is kept there",
        "with several that share no costs there is none, and no rank over all budgets",
    )
    wide = ((0.25, 0.2, 0.1 * FULL), (0.5, 0.4, 0.5 * FULL), (0.75, 0.8, 0.9 * FULL))
    narrow = ((0.25, 0.3, 0.5 * FULL), (0.5, 0.5, 0.5 * FULL), (0.75, 0.7, 0.6 * FULL))
    areas = {one.label: one.area for one in summaries_of(static_skip=wide, static_exit=narrow)}
    # By hand, from 0.3 to 0.7: trapezia between 0.3, 0.4 and 0.7, and between 0.3, 0.5 and 0.7.
    by_hand = (0.1 * (0.3 + 0.5) / 2 + 0.3 * (0.5 + 0.8) / 2) / 0.4
    assert areas["static_skip"].estimate == pytest.approx(by_hand)
    assert areas["static_exit"].estimate == pytest.approx((0.2 * 0.5 + 0.2 * 0.55) / 0.4)
    assert areas["static_skip"].low < by_hand < areas["static_skip"].high
    alone = summary_of((0.5, 0.4, 0.5 * FULL))
    assert (alone.area.estimate, alone.place.rank) == (pytest.approx(0.5), 1)


def test_a_control_is_not_ranked_and_nothing_beyond_the_costs_that_ran_is_credited():
    """What the public board of data-to-text showed: the control first, although the router keeps more at each budget.

    It began at lower costs and counted as 0 below them, and was given full depth's quality up to the cost of full.
    """
    router = ((0.25, 0.35, 0.44 * FULL), (0.5, 0.6, 0.81 * FULL), (0.75, 0.83, 0.96 * FULL))
    control = ((0.25, 0.25, 0.34 * FULL), (0.5, 0.5, 0.65 * FULL), (0.75, 0.75, 0.92 * FULL))
    dear = ((0.25, 1.1, 0.3 * FULL), (0.5, 1.2, 0.4 * FULL), (0.75, 1.3, 0.5 * FULL))
    found = {one.label: one for one in summaries_of(static_exit=router, unified_skip=control)}
    assert found["static_exit"].place.rank == 1 and found["unified_skip"].place is None
    assert list(found) == ["static_exit", "unified_skip"]
    # Cheaper control, so at one cost it keeps more; that is what the areas then say, over the costs that both cover.
    assert found["unified_skip"].area is not None
    both = {one.label: one for one in summaries_of(static_exit=router, static_skip=dear)}
    assert both["static_skip"].area is None and both["static_skip"].place is None
    assert both["static_exit"].area is not None and both["static_exit"].place.rank == 1


def test_every_column_of_the_csv_is_described():
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    names = {name for names, _ in table(text, "| column | what |") for name in re.findall(r"`(\w+)`", names)}
    columns = row_columns("csv", TableInfo(batches=(1,)))
    assert names == {re.sub(r"_b1$", "_bN", one.cell("csv").title) for one in columns}


def test_every_part_of_a_record_is_described():
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    names = {name for names, _ in table(text, "| field | what |") for name in re.findall(r"`(\w+)`", names)}
    assert names == Record.model_fields.keys() - {"schema_", "tune", "withdrawn"}


def test_what_is_enough():
    said(
        "`compute@95`",
        "go down while the one-sided 95 % lower bound stays at or above 95 % of full depth",
        "of mean(q − 0.95 · full), at or above 0, both above chance",
        "The last to pass is `compute@95`",
        '"not reached", if the most expensive setting fails',
        '"too few documents", if it keeps 95 % as measured, and full depth\'s own scores would fail too',
        "The board orders by total FLOPs, and shows the layers of that setting",
        "`compute@99` is given from 2,000 documents on",
    )
    points = [Point(0.2, FULL), Point(0.4, 0.9 * FULL), Point(0.6, FULL), Point(0.8, FULL)]
    assert compute_at(points, FULL).cost == 0.6
    assert compute_at(points[:2], FULL).reason == "not reached"
    assert compute_at([Point(0.6, FULL[:8])], FULL[:8]).reason == "too few documents"
    assert reach.DOCUMENTS_FOR_99 == 2_000
    least = summary_of((0.25, 0.9, FULL), (0.5, 0.8, FULL), (0.75, 0.7, 0.5 * FULL)).enough[0.95]
    assert (least.total, least.layers) == (0.8, 0.5)


def test_a_row_that_missed_its_budget():
    """Tried in test_enough.py and test_claims.py."""
    said(
        "A row that missed its budget?",
        "it is a setting of its method for `compute@95`",
        "compared with controls and smaller models at what it ran at",
        "neither charts nor areas hold it",
    )


def test_gap_closed():
    said(
        "Gap closed",
        "(method − random) ÷ (honest oracle − random)",
        "Blank where the interval of the denominator is not above 0",
    )
    assert gap_closed(FULL - 0.1, FULL - 0.3, FULL).estimate == pytest.approx(2 / 3)
    assert gap_closed(FULL, FULL, FULL + RNG.normal(0, 0.1, N)) is None
    assert gap_closed(FULL, FULL, FULL - 0.3) is None


def test_on_the_frontier():
    said("On the frontier?", "no other row is as cheap and as good, and better in one of the two")
    points = [Point(0.5, FULL), Point(0.5, FULL), Point(0.6, FULL), Point(0.4, FULL - 0.1)]
    assert pareto_probability(points, resamples=50).tolist() == [1, 1, 0, 1]


def test_which_rank():
    said(
        "Which rank?",
        "one place below all rows that are surely better, and one above all that are surely worse",
        "All intervals of a table hold together with 95 %: one critical value serves all its pairs",
        "fewer than 1 + log₂(pairs ÷ 0.05) documents (or sources) are not told apart",
        "With up to 50 documents, the permutation test must also separate them at 5 % ÷ pairs",
    )
    apart = [FULL, FULL - 0.2 + RNG.normal(0, 0.1, N), FULL - 0.2 + RNG.normal(0, 0.1, N), FULL - 0.4]
    places = [(one.low, one.high) for one in Table(apart).ranks]
    assert places == [(1, 1), (2, 3), (2, 3), (4, 4)]
    assert FEW == 50
    assert [Table([np.ones(n), np.zeros(n)]).ranks[1].low for n in (5, 6)] == [1, 2]  # 1 + log₂(1 ÷ 0.05) = 5.3
    # A pair that alone would be parted is not among many: the critical value grows with the table.
    rng = np.random.default_rng(1)
    close = [FULL + rng.normal(0, 0.2, N), FULL + rng.normal(0, 0.2, N)]
    shift = close[1].mean() - close[0].mean() + 2.4 * 0.2 * (2 / N) ** 0.5
    close[0] = close[0] + shift
    assert Table(close).ranks == [Rank(1, 1, 1), Rank(2, 2, 2)]
    crowd = [FULL + rng.normal(0, 0.2, N) for _ in range(12)]
    assert Table([*close, *crowd]).ranks[0].high > 1
    assert Table([*close, *crowd]).ranks[1].low == 1


def test_why_not_one_bootstrap():
    assert "covers the truth in 87 % of the cases, not 95 %; BCa covers it in 91 %." in TEXT
    values = (RNG.random((2000, N)) < 0.02) * RNG.random((2000, N))
    draws = Resample(N, resamples=1000).means(values)
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    assert np.mean((low <= 0.01) & (high >= 0.01)) == pytest.approx(0.87, abs=0.02)
    influence = values - values.mean(axis=1, keepdims=True)
    low, high = bounds.bca_bounds(values.mean(axis=1), draws, influence, 0.95)
    assert np.mean((low <= 0.01) & (high >= 0.01)) == pytest.approx(0.91, abs=0.02)


def test_why_the_unseen_counts():
    assert "13 % of all samples of 200 hold none that does" in TEXT
    assert round(0.99**200, 2) == 0.13
    assert "Where 200 documents differ by 0.1 and more of the metric's range, it changes nothing" in TEXT
    difference = RNG.normal(0, 0.12, N)
    found = paired_difference(0.5 + difference, np.full(N, 0.5), bounds=(0, 1))
    draws, influence = Resample(N).means(difference), (difference - difference.mean())[None]
    low, high = bounds.bca_bounds(np.array([difference.mean()]), draws, influence, 0.95)
    assert (found.low, found.high) == pytest.approx((low[0], high[0]))
    assert "±0.019" in TEXT and "with 2,000 it is ±0.002" in TEXT
    assert unseen_share(2000, 0.95) == pytest.approx(0.002, abs=1e-4)


def test_the_board_says_so_too():
    for sentence in (
        "intervals that hold together",
        "Methods that ran at every budget are also ranked over all of them, by the area under their curve",
        "*Enough for 95 %*: from the most expensive setting down, as long as each surely keeps 95 % of full depth, the "
        "last one, by total FLOPs",
        "at most 400 rows of a page",
        "one process per core, at most four",
        "Of large runs (8 MB and more)",
        "up to 500 documents per row, at most 200 kB per page",
    ):
        assert sentence in BOARD
    page = (DOCS.parent / "leaderboard" / "templates" / "view.html.j2").read_text(encoding="utf-8")
    assert "all intervals of a table hold together with 95 %" in page
    assert "settings are tested one by one from the dearest down" in page
    assert MOST_COMPARED == MOST_PAIRED == 400
    assert (workers.LARGE, workers.MOST) == (8_000_000, 4)
    assert (sample_pages.MOST, sample_pages.LARGEST) == (500, 200_000)
    assert summary_of((0.25, 0.4, FULL), (0.5, 0.6, FULL)).place == RankedPlace(1, 1, 1, "", False)


def test_llm_drop_ranks_all_halves_together_unless_told_otherwise():
    (row,) = [row for row in table(METHODS, "| method | rule |") if row[0] == "`llm_drop`"]
    assert (
        row[1] == "drop attention and feed-forward halves, ranked together, by similarity; one kind alone with `part`"
    )
    method = registry.load("llm_drop")
    assert method().part == "both"
    module = sys.modules[method.__module__].__doc__
    assert "By default (`part=both`) all halves are ranked together" in " ".join(module.split())
    # By hand: of two layers the cheapest halves to lose are the attention of one and the feed-forward of the other.
    importance = (0.1, 0.9, 0.8, 0.2)  # attention of layers 0 and 1, then their feed-forwards
    plan = method(share=0.5, importance=importance, attention_cost=(0.5, 0.5)).actions(2)
    assert plan == (Action.MLP, Action.ATTN)
    alone = method(share=0.5, importance=importance, attention_cost=(0.5, 0.5), part="attention").actions(2)
    assert alone == (Action.MLP, Action.MLP)


def test_the_table_of_methods_is_that_of_the_code():
    rows = {row[0].strip("`"): row for row in table(METHODS, "| method | rule |")}
    files = (DOCS.parent / "methods").glob("*.py")
    assert set(rows) == {path.stem for path in files if not path.stem.startswith("_")}
    assert {name for name, row in rows.items() if row[5] == "yes"} == set(registry.CORE)
    per = {"run": "static", "token": "token", "sequence": "sequence"}
    for name, (_, rule, decides, paper, learns, _) in rows.items():
        method = registry.load(name)
        assert ("not deployable" in rule) != method.deployable, name
        if getattr(method, "fitted", False):
            assert learns, name
        source = sys.modules[method.__module__].__doc__
        assert all(number in source for number in re.findall(r"\d{4}\.\d{5}", paper)), name
        if decides in per and name != "oracle":
            assert method().scope == per[decides], name
