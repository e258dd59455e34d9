"""Every figure on the front pages of the published boards, worked out again from the records by code of its own.

`plain_figures` and `plain_intervals` share nothing with `dlbench.stats` and `dlbench.leaderboard.analysis`. Bootstraps
draw other documents than the board's, twice as many, so the ends of their intervals agree to 8 % of the distance to the
estimate (10,000 draws move an end of a 95 % interval by 1.4 % of it as a rule); all else is exact to the digits that
pages show. Where a pair of rows lies nearer to the critical value than draws decide, either rank will do.
"""

import json
import re
from pathlib import Path

import plain_figures as plain
import pytest
from page_tables import Tables, texts

from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.pages.site_files import site_files

pytestmark = pytest.mark.slow  # both boards are built, and every interval is worked out again

RECORDS = Path(__file__).parent.parent.parent / "leaderboard" / "records"
BOARDS = {
    "nano": ("nano-all-tasks", "nano-data2text", "nano-math", "nano-summary", "nano-translate"),
    "smollm2": ("smollm2-all-tasks", "pocket-data2text", "pocket-summary"),
}
PAGES = [(name, slug) for name, slugs in BOARDS.items() for slug in slugs]
DIGITS = 6e-5  # of JSON: five
DRAWN = 0.08
KINDS = ("method", "control")


class Page:
    """What is published of a view, and the same worked out from the records."""

    def __init__(self, folder, files, slug):
        (self.view,) = [one for one in json.loads(files["board.json"])["views"] if one["name"] == slug]
        self.rows = {one["id"]: one for one in self.view["rows"]}
        (data,) = [files[one] for one in files if one.endswith(f"{slug}.front.js")]
        self.fronts = json.loads(data.decode().split("=", 1)[1].rstrip(";\n"))
        self.plain = plain.View(
            folder, self.view["tracks"], [(one["label"], one["budget"], one["keys"]) for one in self.view["rows"]]
        )
        self.settings = dict(zip(self.rows, self.plain.settings, strict=True))
        self.id_of = {id(setting): row for row, setting in self.settings.items()}

    def front(self, axis):
        """Return the headline, the three answers' texts, and the ranking: attributes and cells by label."""
        parts = self.fronts[axis]
        answers = [
            " ".join(re.sub("<[^>]+>", " ", one).split()) for one in parts["cards"].split('<div class="answer">')[1:]
        ]
        lines = {
            attrs["data-s"]: (attrs, texts(cells)) for attrs, cells in Tables(parts["ranking"]).tables["ranking"][1:]
        }
        return parts["headline"], answers, lines


@pytest.fixture(scope="module")
def pages():
    found = {}
    for name, slugs in BOARDS.items():
        files = dict(site_files(read_board([RECORDS / name])))
        folder = plain.Folder(RECORDS / name)
        assert {one["name"] for one in json.loads(files["board.json"])["views"]} == set(slugs)
        found |= {(name, slug): Page(folder, files, slug) for slug in slugs}
    return found


@pytest.fixture(params=PAGES, ids=[slug for _, slug in PAGES])
def page(request, pages):
    return pages[request.param]


def near(ends, low, high, slack=0.0):
    """Check two ends of an interval that was drawn otherwise."""
    assert low == pytest.approx(ends.low, abs=DRAWN * (ends.estimate - ends.low) + slack), (ends, low, high)
    assert high == pytest.approx(ends.high, abs=DRAWN * (ends.high - ends.estimate) + slack), (ends, low, high)


def numbers(text):
    return [float(one.replace("−", "-")) for one in re.findall(r"[-−]?\d+\.?\d*", text)]


def test_no_record_is_left_out_and_rows_of_one_name_are_of_one_method(page):
    keys = [key for row in page.rows.values() for key in row["keys"]]
    assert len(keys) == len(set(keys))
    if len(page.view["tracks"]) == 1:
        (track,) = page.view["tracks"]
        assert set(keys) == {key for key, one in page.plain.folder.records.items() if one["track"] == track}
    for row, setting in page.settings.items():
        assert page.rows[row]["kind"] == setting.kind
        assert {one["method"]["name"] for one in setting.records} == {page.rows[row]["method"]}
        assert {one["run"]["budget"] for one in setting.records} == {setting.budget}
        assert (page.rows[row]["status"] == "ok") == setting.ok


def test_what_is_kept_and_its_interval(page):
    told = 0
    for row, setting in page.settings.items():
        shown = page.rows[row]
        assert shown["retained"] == pytest.approx(setting.kept, rel=DIGITS), row
        ends = page.plain.kept(setting)
        if ends is not None:
            near(ends, *shown["retained_ci95"], slack=DIGITS)
            told += setting.kind in KINDS
    assert told >= 21


def test_costs_and_speed_ups(page):
    for row, setting in page.settings.items():
        assert page.rows[row]["costs"] == pytest.approx(setting.costs, rel=DIGITS), row
    assert {"layers", "decode", "total", "token1", "token16", "document1", "document16"} == set(page.fronts)


def test_the_ranking_on_every_axis(page):
    settled = open_ = 0
    for axis in page.fronts:
        _, _, lines = page.front(axis)
        _, chosen, controls = page.plain.mark(axis)
        methods = list(chosen.values())
        ranks = page.plain.places(methods) if methods else []
        places = {one.label: place for one, place in zip(methods, ranks, strict=True)}
        for setting in (*methods, *controls.values()):
            attributes, (rank, _, kept, *rest) = lines[setting.label]
            assert attributes["data-row"] == page.id_of[id(setting)], (axis, setting.label)
            told = numbers(kept)
            assert told[0] == pytest.approx(100 * setting.kept, abs=0.051)
            near(page.plain.kept(setting), told[1] / 100, told[2] / 100, slack=5.1e-4)
            *_, layers, decode, total, one, sixteen, _ = rest
            costs = [100 * setting.costs[key] for key in ("layers", "decode", "total")]
            assert [float(text) for text in (layers, decode, total)] == pytest.approx(costs, abs=0.051)
            speeds = [1 / setting.costs[key] for key in ("token1", "token16")]
            assert [float(text.rstrip("×")) for text in (one, sixteen)] == pytest.approx(speeds, abs=0.0051)
            if setting.kind == "control":
                assert rank == ""
                continue
            place, lows, highs = places[setting.label]
            shown = [int(text) for text in re.findall(r"\d+", rank)]
            low, high = shown[1:] or (shown[0], shown[0])
            assert shown[0] == place and lows[0] <= low <= lows[1] and highs[0] <= high <= highs[1], (axis, setting)
            settled += (lows[0] == lows[1]) + (highs[0] == highs[1])
            open_ += 2
        shown_labels = {label for label, (attributes, _) in lines.items() if attributes["data-k"] in KINDS}
        rest = [label for label in shown_labels if label not in places and label not in controls]
        assert all("never so cheap" in lines[label][1][1] for label in rest)
        every = page.plain.by_label("method", axis).keys() | page.plain.by_label("control", axis).keys()
        assert shown_labels == every
    assert settled >= 0.9 * open_


def test_the_ranks_within_each_budget(page):
    budgets = {one.budget for one in page.settings.values() if one.kind == "method"}
    for budget in budgets:
        same = [one for one in page.settings.values() if (one.kind, one.budget, one.ok) == ("method", budget, True)]
        for setting, (place, lows, highs) in zip(same, page.plain.places(same), strict=True):
            row = page.rows[page.id_of[id(setting)]]
            low, high = row["rank_interval"]
            assert row["rank"] == place and lows[0] <= low <= lows[1] and highs[0] <= high <= highs[1]


def test_the_headline_and_the_answers_on_every_axis(page):
    for axis in page.fronts:
        headline, (best, enough, bar), _ = page.front(axis)
        mark, chosen, controls = page.plain.mark(axis)
        if mark is None:
            assert "keeps" not in headline and "No method with a known quality costs less than all of full" in best
            _enough_is_right(page, axis, enough)
            continue
        first, *others = sorted(chosen.values(), key=lambda one: -one.kept)
        assert f"{first.label} keeps most" in headline and f" {100 * first.kept:.0f} % of full depth" in headline
        assert f"{first.label} {100 * first.kept:.1f} %" in best
        assert f"{100 * first.costs[axis]:.1f} % of " in best and f"{1 / first.costs['token1']:.2f}× at batch 1" in best
        if others:
            points = 100 * (first.kept - others[0].kept)
            assert f"{points:.1f} points ahead of {others[0].label}" in best or f"({points:+.1f} points)" in best
        else:
            assert "the only method there" in best
        _enough_is_right(page, axis, enough)
        dense = [one for one in page.settings.values() if one.kind == "dense"]
        strongest = max(controls.values(), key=lambda one: one.kept, default=None)
        against = dense[0] if dense else strongest
        assert against is not None
        label = against.label.replace(" · ", " ")  # the page breaks lines there
        assert f"{label} {100 * against.kept:.1f} %" in bar.replace(" · ", " ")
        points = 100 * (first.kept - against.kept)
        assert f"{abs(points):.1f} points" in bar or f"({points:+.1f} points)".replace("-", "−") in bar


def _enough_is_right(page, axis, card):
    """All methods are tested together: each at 95 % corrected by their number, and the cheapest is named."""
    methods = {}
    for one in page.settings.values():
        if one.kind == "method" and axis in one.costs:
            methods.setdefault(one.label, []).append(one)
    reached = {label: page.plain.enough(several, axis, 1 - 0.05 / len(methods)) for label, several in methods.items()}
    least = {min(max(costs) for costs in reached.values()), min(min(costs) for costs in reached.values())}
    answers = {(cost, label) for label, costs in reached.items() for cost in costs if min(least) <= cost <= max(least)}
    shown = [
        f"{label} {100 * cost:.1f} %" in card or f"{label} keeps it, at {100 * cost:.1f} %" in card
        for cost, label in answers
        if cost < float("inf")
    ]
    none = any(word in card for word in ("no method", "unknown", "too few documents"))
    assert any(shown) or (none and max(least) == float("inf")), (axis, card, answers)


def test_areas_gaps_and_enough_of_each_method(page):
    areas, told = page.plain.areas(), 0
    for method in page.view["methods"]:
        label = method["label"]
        several = [one for one in page.settings.values() if one.label == label]
        assert (method["area"] is not None) == (label in areas), label
        if method["area"]:
            ends = page.plain.kept_of(areas[label])
            assert method["area"]["estimate"] == pytest.approx(ends.estimate, rel=DIGITS)
            near(ends, method["area"]["low"], method["area"]["high"], slack=DIGITS)
        gaps = {f"{one.budget:g}": gap for one in several if (gap := page.plain.gap(one)) is not None}
        assert set(gaps) == set(method["gap_closed"])
        for budget, ends in gaps.items():
            shown = method["gap_closed"][budget]
            assert shown["estimate"] == pytest.approx(ends.estimate, rel=1e-4, abs=DIGITS)
            near(ends, shown["low"], shown["high"], slack=1e-4)
            told += 1
        shown = method["enough"]["0.95"]
        found = page.plain.enough([one for one in several if "total" in one.costs], "total")
        there = float("inf") if shown["total"] is None else shown["total"]
        assert any(there == pytest.approx(cost, rel=DIGITS) for cost in found), (label, shown, found)
        assert (shown["reason"] == "not reached") == (shown["total"] is None)
        assert method["enough"]["0.99"]["total"] is None  # fewer than 2,000 documents
    assert told or not any(one.records[0]["method"]["name"] == "oracle_cross" for one in page.settings.values())


def test_ranks_over_all_budgets(page):
    areas = page.plain.areas()
    ranked = [one for one in page.view["methods"] if one["label"] in areas and one["kind"] == "method"]
    assert {one["label"] for one in page.view["methods"] if one["rank"]} == {one["label"] for one in ranked}
    rows = [plain.Setting([], areas[one["label"]], {}, one["label"], None) for one in ranked]
    for method, (place, lows, highs) in zip(ranked, page.plain.places(rows) if rows else (), strict=True):
        low, high = method["rank_interval"]
        assert method["rank"] == place and lows[0] <= low <= lows[1] and highs[0] <= high <= highs[1]
