"""Every figure on the board has one source: page, sentences, JSON, CSV and terminal agree where two rules would differ.

Each board here was made so that two definitions of a figure, which once stood side by side, give different answers. The
figure is worked out in the test from the records alone.
"""

import ast
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from page_tables import page_rows, page_table
from record_factory import board_from, record, sha
from rich.console import Console

from dlbench.leaderboard.data.fit_seeds import group_seeds
from dlbench.leaderboard.data.paired_scores import scored_entries
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.data.views import build_views
from dlbench.leaderboard.pages.site_files import site_files
from dlbench.leaderboard.terminal.table import print_board

ROOT = Path(__file__).parent.parent.parent / "leaderboard"
N = 300
RNG = np.random.default_rng(0)
FULL = RNG.uniform(0.5, 0.9, N)
NOISE = {name: RNG.normal(0, 0.02, N) for name in ("router", "token", "sequence", "oracle", "coin")}


def row(name, scores, budget=0.5, layers=None, total=None, against=FULL, **changes):
    """Return one record with its scores; the layers are those of the budget unless they are given."""
    layers = budget if layers is None else layers
    made = record(
        name,
        scores=scores,
        full=against,
        **{
            "run": {"budget": budget, "seed": changes.pop("seed", 0), "kv": changes.pop("kv", "project")},
            "compute": {"layer_share": layers or 1.0, "flop_share_total": total or layers or 1.0},
            "backbone": {"layers": 16} | changes.pop("backbone", {}),
        },
        **changes,
    )
    return made, scores


class Shown:
    """All outputs of a board of one task."""

    def __init__(self, *rows):
        self.records = [made for made, _ in rows]
        scores = {made.key: {f"{place:03}": float(x) for place, x in enumerate(values)} for made, values in rows}
        self.board = board_from(self.records, scores)
        files = dict(site_files(self.board))
        self.page = files["index.html"].decode()
        (view,) = json.loads(files["board.json"])["views"]
        self.methods = {one["label"]: one for one in view["methods"]}
        self.rows = {one["id"]: one for one in view["rows"]}
        self.csv = list(csv.DictReader(io.StringIO(files["records.csv"].decode())))
        self.lines = self.board.headlines()
        console = Console(width=160, file=io.StringIO(), color_system=None)
        print_board(self.board, console)
        self.text = console.file.getvalue().split("Methods over all budgets")[1]

    def line(self, words):
        """Return the sentence that holds these words; empty where there is none."""
        return next((line for line in self.lines if words in line), "")

    def headline(self):
        """Return the sentence above the chart."""
        return self.page.split('<h1 id="chart-h">')[1].split("</h1>")[0]

    def cell(self, label, heading):
        """Return a method's cell of the page's table of methods; None without such a column."""
        lines = {attrs["data-s"]: cells for attrs, cells in page_table(self.page, "summary")}
        return lines[label].get(heading)

    def of_csv(self, label, column, budget=0.5):
        """Return a figure of the CSV file; None where the field is empty."""
        (value,) = {one[column] for one in self.csv if one["label"] == label and one["budget"] == str(budget)}
        return float(value) if value else None

    def terminal(self, label):
        """Return the words of a method's line in the terminal: name, kind, rank, area, enough for 95 %, gap closed."""
        (line,) = [line.split() for line in self.text.splitlines() if line.split()[:1] == [label]]
        return line


def full(scores=FULL):
    return row("full", scores, None)


# ---- the gap closed

TOKEN = 0.4 * FULL + NOISE["token"]
SEQUENCE = 0.2 * FULL + NOISE["sequence"]
ROUTER = 0.7 * FULL + NOISE["router"]
OTHER_FULL = FULL - 0.1  # full depth's scores under the references that the honest oracle is scored on
ORACLE = 0.9 * OTHER_FULL + NOISE["oracle"]


def gap_board(beyond):
    """Return a board on which random routing ends so far below the router's share of the layers."""
    variants = [
        row("random_skip", scores, layers=0.5 - beyond, method={"params": {"per": per}, "kind": "control"})
        for per, scores in (("token", TOKEN), ("sequence", SEQUENCE))
    ]
    oracle = row("oracle_cross", ORACLE, against=OTHER_FULL)
    return Shown(full(), row("hidden_router", ROUTER), *variants, oracle)


def test_the_gap_closed_is_one_figure_over_one_variant():
    shown = gap_board(0.025)
    kept = [ROUTER.mean() / FULL.mean(), TOKEN.mean() / FULL.mean(), ORACLE.mean() / OTHER_FULL.mean()]
    gap = (kept[0] - kept[1]) / (kept[2] - kept[1])
    both = (TOKEN + SEQUENCE).mean() / 2 / FULL.mean()
    assert abs((kept[0] - both) / (kept[2] - both) - gap) > 0.02  # over both variants it would be another
    assert shown.methods["hidden_router"]["gap_closed"]["0.5"]["estimate"] == pytest.approx(gap, rel=1e-4)
    assert shown.cell("hidden_router", "Gap closed at 50 %").startswith(f"{100 * gap:.1f} [")
    assert f"is closed to {100 * gap:.0f} % [" in shown.line("the gap from random routing")
    assert shown.of_csv("hidden_router", "gap_closed") == pytest.approx(gap)
    assert shown.terminal("hidden_router")[-1] == f"{100 * gap:.1f}"
    (standing,) = shown.board.standings.values()
    assert standing.gap.closed.estimate == standing.summaries[0].gaps[0.5].estimate


def test_the_gap_closed_has_one_slack():
    """A curve's end stands for a share that lies 0.03 beyond it, not 0.04: nowhere is there a figure at 0.035."""
    shown = gap_board(0.035)
    assert shown.methods["hidden_router"]["gap_closed"] == {}
    assert shown.cell("hidden_router", "Gap closed at 50 %") is None
    assert shown.of_csv("hidden_router", "gap_closed") is None
    assert "gap, %" not in shown.text
    assert shown.line("the gap from random routing") == ""


def test_the_gap_closed_is_measured_under_the_policy_of_the_method():
    """Not against the variant whose name comes first, which evicts: that would be another control."""
    evict, project = 0.2 * FULL + NOISE["sequence"], TOKEN
    variants = [
        row("random_skip", scores, kv=kv, method={"params": {"per": "token"}, "kind": "control"})
        for kv, scores in (("evict", evict), ("project", project))
    ]
    routers = [row("hidden_router", ROUTER, kv="project"), row("hidden_router", ROUTER - 0.02, kv="evict")]
    oracle = row("oracle_cross", ORACLE, against=OTHER_FULL, method={"scope": "static"})
    shown = Shown(full(), *routers, *variants, oracle)
    best = ORACLE.mean() / OTHER_FULL.mean()
    for kv, router, random in (("project", ROUTER, project), ("evict", ROUTER - 0.02, evict)):
        kept, low = (scores.mean() / FULL.mean() for scores in (router, random))
        closed = shown.methods[f"hidden_router · kv={kv}"]["gap_closed"]["0.5"]["estimate"]
        assert closed == pytest.approx((kept - low) / (best - low), rel=1e-4)


# ---- controls

COIN = 0.97 * FULL + NOISE["coin"]


@pytest.fixture(scope="module")
def coin():
    """A board whose best row, and the only one that keeps 95 %, is a control by its kind alone."""
    return Shown(
        full(),
        row("coin_flip", COIN, method={"kind": "control"}),
        row("coin_flip", 0.5 * COIN, 0.25, method={"kind": "control"}),
        row("static_skip", FULL + 0.01, total=0.6, method={"kind": "control"}),
        row("static_exit", 0.8 * FULL + NOISE["router"]),
        row("hidden_router", ROUTER),
        row("random_skip", TOKEN, method={"kind": "control"}),
        row("oracle_cross", ORACLE, against=OTHER_FULL),
    )


def test_a_control_is_one_everywhere(coin):
    kinds = {attrs["data-s"]: attrs["data-k"] for attrs, _ in page_rows(coin.page)}
    summed = {attrs["data-s"]: attrs["data-k"] for attrs, _ in page_rows(coin.page, "summary")}
    for label in ("coin_flip", "static_skip", "random_skip"):
        assert kinds[label] == summed[label] == coin.methods[label]["kind"] == "control"
        assert {one["kind"] for one in coin.rows.values() if one["label"] == label} == {"control"}
        assert {one["kind"] for one in coin.csv if one["label"] == label} == {coin.terminal(label)[1]} == {"control"}
    for label in ("static_exit", "hidden_router"):
        assert kinds[label] == summed[label] == coin.methods[label]["kind"] == coin.terminal(label)[1] == "method"
        assert {one["kind"] for one in coin.csv if one["label"] == label} == {"method"}


def test_a_control_is_never_credited_as_a_method(coin):
    kept = 100 * (0.8 * FULL + NOISE["router"]).mean() / FULL.mean()
    assert coin.headline().startswith(
        f"At half of the layers, static_exit keeps most of all methods: {kept:.0f} % of full depth’s "
        "quality; the control static_skip keeps 10"
    )
    assert coin.line("95 % of full") == (
        "With all methods tested together, 95 % of full is surely kept by no method on nano_summary."
    )
    assert "by static_exit on nano_summary" in coin.line("the gap from random routing")
    assert not any("kipping" in claim.subject or "coin_flip" in claim.sentence for claim in coin.board.claims)
    (standing,) = coin.board.standings.values()
    assert standing.frontiers["total"].keys() == {"controls"}  # two points of the coin; no method has as many


# ---- enough for 95 %


@pytest.fixture(scope="module")
def axes():
    """A board on which the setting of fewest layers, that of 25 %, is the dearest in FLOPs."""
    return Shown(
        full(),
        row("hidden_router", FULL + 0.001, 0.25, total=0.9),
        row("hidden_router", FULL + 0.002, 0.5, total=0.6),
        row("hidden_router", 0.5 * FULL, 0.75, total=0.5),
        row("static_skip", FULL + 0.003, 0.25, layers=0.2, total=0.95),
    )


def test_enough_is_chosen_by_flops_and_says_so(axes):
    settings = [(0.9, 0.25, FULL + 0.001), (0.6, 0.5, FULL + 0.002), (0.5, 0.75, 0.5 * FULL)]
    total, layers = None, None
    for cost, share, scores in sorted(settings, key=lambda one: -one[0]):
        if scores.mean() < 0.95 * FULL.mean():
            break
        total, layers = cost, share
    assert (total, layers) == (0.6, 0.5)
    assert min(share for _, share, scores in settings if scores.mean() >= 0.95 * FULL.mean()) == 0.25 != layers
    enough = axes.methods["hidden_router"]["enough"]["0.95"]
    assert enough == {"layers": layers, "total": total, "reason": ""}
    assert axes.cell("hidden_router", "Enough for 95 % FLOPs layers") == f"{100 * total:.1f} {100 * layers:.1f}"
    assert axes.line("95 % of full") == (
        "With all methods tested together, 95 % of full is surely kept by hidden_router at 60 % of full's FLOPs "
        "(50 % of the layers) on nano_summary."
    )
    assert axes.of_csv("hidden_router", "method_enough_95_flops") == total
    assert axes.of_csv("hidden_router", "method_enough_95_layers") == layers
    assert axes.terminal("hidden_router")[-2:] == [f"{100 * total:.1f}", f"({100 * layers:.1f})"]
    assert "95 % at FLOPs" in axes.text and "(layers), %" in axes.text
    assert "the cheapest setting, by total FLOPs, that keeps 95 %" in " ".join(axes.page.split())


# ---- ranks


@pytest.fixture(scope="module")
def reruns():
    """A board on which the row that keeps most was not rerun, so that it is not ranked."""
    return Shown(
        full(),
        row("calm", 0.95 * FULL),
        row("static_skip", 0.6 * FULL + NOISE["token"], trust="rerun"),
        row("static_exit", 0.8 * FULL + NOISE["oracle"], trust="reproduced"),
        row("hidden_router", 0.7 * FULL + NOISE["router"], trust="rerun"),
    )


def test_the_rank_is_one_and_the_best_is_who_ranks_first(reruns):
    means = {one.method.name: one.quality.mean for one in reruns.records if one.trust != "self-reported"}
    order = sorted(means, key=lambda name: -means[name])
    assert order == ["static_exit", "hidden_router", "static_skip"]
    ranks = {name: place for place, name in enumerate(order, start=1)} | {"calm": None, "full": None}
    by_label = {one["label"]: one["rank"] for one in reruns.rows.values()}
    assert by_label == ranks
    shown = {attrs["data-s"]: cells[0] for attrs, cells in page_rows(reruns.page)}
    assert shown == {name: "–" if rank is None else str(rank) for name, rank in ranks.items()}
    summed = {attrs["data-s"]: cells[0] for attrs, cells in page_rows(reruns.page, "summary")}
    assert summed == {name: "–" if ranks[name] is None else str(ranks[name]) for name in summed}
    assert {name: one["rank"] for name, one in reruns.methods.items()} == {name: ranks[name] for name in summed}
    assert {one["label"]: int(one["rank"]) if one["rank"] else None for one in reruns.csv} == ranks
    assert {name: reruns.terminal(name)[2] for name in summed} == summed
    kept = 100 * means["static_exit"] / FULL.mean()
    assert reruns.headline() == f"At half of the layers, static_exit keeps most: {kept:.0f} % of full depth’s quality"


# ---- on the front


def test_the_front_is_one_and_holds_deployable_rows_that_met_their_budget_and_are_not_beaten():
    """The smaller dense model is left out of it everywhere: once the CSV file held it, and so nothing that it beats."""
    dense = {"name": "nano-half", "layers": 8, "sha256": sha("nano-half")}
    shown = Shown(
        full(),
        row("full", FULL + 0.05, None, total=0.3, backbone=dense),
        row("good", 0.9 * FULL, total=0.5),
        row("beaten", 0.8 * FULL, total=0.6),
        row("equal_but_dearer", 0.9 * FULL, total=0.7),
        row("missed", FULL + 0.1, total=0.1, status="unreachable"),
        row("oracle", FULL + 0.1, total=0.2),
    )
    marked = {attrs["data-s"] for attrs, cells in page_rows(shown.page) if any("◆" in text for text in cells)}
    assert marked == {"full", "good"}
    assert {one["label"] for one in shown.rows.values() if one["on_front"]} == marked
    assert {one["label"] for one in shown.csv if one["pareto"] == "True"} == marked
    assert {one["label"] for one in shown.csv if not one["pareto"]} == {"nano-half", "missed", "oracle"}


# ---- seeds

TWO = [{"params": {"threshold": threshold}, "knob": "threshold"} for threshold in (0.3, 0.4)]  # settings, no seeds
TUNED = {"sha256": sha("tuned"), "base_sha256": sha("nano")}


def test_seeds_are_grouped_alike_on_pages_and_in_comparisons():
    rows = [
        *(row("hidden_router", ROUTER + 0.01 * seed, seed=seed) for seed in range(3)),
        row("hidden_router", SEQUENCE, seed=7, backbone=TUNED),  # bears the base's name
        *(row("calm", TOKEN, None, layers=0.3 + 0.1 * seed, seed=seed, method=TWO[seed]) for seed in (0, 1)),
        *(row("static_skip", TOKEN, seed=seed, status=status) for seed, status in enumerate(("ok", "unreachable"))),
    ]
    (track,) = build_tracks(made for made, _ in rows)
    scores = {made.key: {f"{place:03}": float(x) for place, x in enumerate(values)} for made, values in rows}
    (view,) = build_views([track])
    on_pages = {frozenset(one.record.key for one in entry.rows[0]) for entry in view.entries}
    compared = scored_entries(track, scores, unreachable=True)
    assert {frozenset(one.record.key for one in entry.rows) for entry in compared} == on_pages
    assert {frozenset(one.record.key for one in same) for same in group_seeds(track.rows).values()} == on_pages
    sizes = sorted((entry.label, entry.repeats, entry.ok) for entry in view.entries)
    assert sizes == [
        ("calm", 1, True),
        ("calm", 1, True),
        ("hidden_router", 3, True),
        (f"hidden_router · nano ({TUNED['sha256'][:8]})", 1, True),  # another model of the base's name
        ("static_skip", 2, False),  # a setting of which one seed missed its budget missed it
    ]
    assert len(scored_entries(track, scores)) == 4


# ---- nobody else works a figure out


def callers(name):
    """Return the files of the leaderboard that call a function of that name, or make an object of that class."""
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if called == name:
                    found.add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize(
    ("function", "files"),
    [
        ("build_tracks", {"data/run_files.py"}),
        ("group_seeds", {"data/entries.py", "data/paired_scores.py", "data/views.py"}),
        ("gap_closed", {"analysis/gap_closed.py"}),
        ("compute_at", {"analysis/enough.py"}),
        ("enough", {"analysis/enough.py"}),
        ("RankedPlace", {"analysis/ranking.py"}),
        ("claims", {"board.py"}),
    ],
)
def test_each_figure_is_worked_out_in_one_place(function, files):
    assert callers(function) == files


def test_what_is_a_control_is_said_once():
    named = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if '== "control"' in path.read_text("utf-8")}
    tests = {path for path in named if 'method.kind == "control"' in (ROOT / path).read_text("utf-8")}
    assert tests == {"data/tracks.py"}
