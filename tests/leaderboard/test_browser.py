"""The board in a real browser: what people do with it, and that it asks for nothing and complains of nothing."""

import re

import numpy as np
import pytest
from browser import Watched, axe, browsing, chromium, until
from record_factory import record, synthetic_run

from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.site import build
from dlbench.records.schema import write_lines

PAGES = ("index.html", "nano-summary.html", "methods.html", "methods/hidden-router.html")
SAMPLES = "samples/nano-math/static-exit-50.html"


@pytest.fixture(scope="module")
def browser():
    with browsing(chromium()) as found:
        yield found


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = synthetic_run(documents=20, tasks=["nano_summary", "nano_math"]).write(tmp_path_factory.mktemp("run"))
    return build(read_board([folder]), tmp_path_factory.mktemp("site")).parent


@pytest.fixture
def watched(browser, site, request):
    options = getattr(request, "param", {})
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    found = Watched(context.new_page())
    yield found
    found.assert_clean(site)
    context.close()


def shown(page):
    """Ids of the rows that are shown, in order."""
    return page.eval_on_selector_all("#table tbody tr[id]", "rows => rows.filter(r => !r.hidden).map(r => r.id)")


def settled(page):
    """Wait for the last part of a drag: on a slow machine the page takes its first part for a pause, and shows that."""
    before = None
    while page.url != before:
        before = page.url
        page.wait_for_timeout(1000)


def ranked(page):
    """Names of the lines of the ranking that are shown, in order."""
    lines = "rows => rows.filter(r => !r.hidden).map(r => r.dataset.s)"
    return page.eval_on_selector_all("#ranking > tbody > tr[data-s]", lines)


def column(page, number):
    return [
        float(re.search(r"[\d.]+", text).group())
        for text in page.eval_on_selector_all(
            "#table tbody tr[id]", f"rows => rows.filter(r => !r.hidden).map(r => r.cells[{number}].textContent)"
        )
        if re.search(r"\d", text)
    ]


def test_a_heading_sorts_both_ways_and_says_so(watched, site):
    page = watched.open(site / "nano-summary.html", unfold=True)
    start = shown(page)
    heading = page.locator("#table th[data-sort='kept']")
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "descending"
    kept = column(page, 5)
    assert len(kept) == len(start) and kept == sorted(kept, reverse=True)
    heading.locator("button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert column(page, 5) == sorted(kept)
    assert page.locator("#table th[data-sort='total']").get_attribute("aria-sort") == "none"
    heading.locator("button").click()
    assert shown(page) == start and page.locator("tr.head:visible").count() > 3
    page.locator("#methods th[data-sort='name'] button").click()
    names = page.eval_on_selector_all("#summary tbody th", "cells => cells.map(c => c.textContent.trim())")
    assert names == sorted(names)


def test_search_and_filters_narrow_the_rows_and_all_of_it_is_in_the_address(watched, site):
    page = watched.open(site / "nano-summary.html", unfold=True)
    everything = shown(page)
    page.fill("#find", "threshold")  # stands in no cell, only in the settings
    assert shown(page) and all("router" in id_ or "calm" in id_ for id_ in shown(page))
    page.fill("#find", "router")
    assert {name.split(" ")[0] for name in ranked(page)} == {"hidden_router"}
    assert shown(page) and all("router" in id_ for id_ in shown(page))
    page.click("[data-kind='control']")
    assert all("fixed-input" in id_ for id_ in shown(page))
    page.select_option("#budget", "0.5")
    assert shown(page) == ["hidden-router-fixed-input-50"]
    assert "1 of" in page.inner_text("#count")
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert shown(page) == ["hidden-router-fixed-input-50"]
    assert page.input_value("#find") == "router"
    page.click("#reset")
    assert shown(page) == everything and "#" not in page.url
    page.click("#front")
    assert 0 < len(shown(page)) < len(everything)


def test_brushing_the_chart_keeps_its_rows_and_survives_a_reload(watched, site):
    page = watched.open(site / "nano-summary.html", unfold=True)
    everything = shown(page)
    box = page.locator(".live-chart svg").bounding_box()
    page.mouse.move(box["x"] + 0.35 * box["width"], box["y"] + 0.15 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.95 * box["width"], box["y"] + 0.7 * box["height"], steps=6)
    page.mouse.up()
    until(page, "location.hash.includes('box=')")
    settled(page)
    inside = shown(page)
    assert 0 < len(inside) < len(everything)
    x0, x1, y0, y1 = map(float, re.search(r"box=([-\d.,]+)", page.url).group(1).split(","))
    costs, kept = column(page, 7), column(page, 5)
    assert all(x0 - 0.001 <= cost / 100 <= x1 + 0.001 for cost in costs)
    assert all(y0 - 0.001 <= one / 100 <= y1 + 0.001 for one in kept)
    page.reload()
    page.wait_for_selector(".live-chart svg")
    assert shown(page) == inside


def test_a_link_to_a_place_of_the_page_keeps_what_the_address_says(watched, site):
    page = watched.open(site / "nano-summary.html", unfold=True)
    page.check("#axis input[value='total']", force=True)
    until(page, "document.getElementById('plot').dataset.axis === 'total'")
    page.locator("a.skip").focus()
    page.keyboard.press("Enter")
    assert "axis=total" in page.url and page.evaluate("document.activeElement.id") == "best"
    assert page.evaluate("document.getElementById('plot').dataset.axis") == "total"


def test_a_table_that_the_address_sorts_is_open(watched, site):
    page = watched.open(site / "nano-summary.html", unfold=True)
    page.locator("#methods th[data-sort='name'] button").click()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    assert page.locator("#summary").is_visible()
    assert page.locator("#methods th[data-sort='name']").get_attribute("aria-sort") != "none"


def test_another_cost_changes_chart_headline_answers_and_ranking_together(watched, site):
    page = watched.open(site / "nano-summary.html")
    before = page.inner_text("#answers"), ranked(page)
    page.check("#axis input[value='total']", force=True)
    until(page, "document.getElementById('plot').dataset.axis === 'total'")
    assert "axis=total" in page.url
    assert "FLOPs of prompt and output" in page.locator(".live-chart").inner_text()
    assert "full’s total FLOPs" in page.inner_text("h1") and "full’s total FLOPs" in page.inner_text("#answers")
    assert "on" in page.get_attribute("#ranking thead th:has-text('Total')", "class")
    assert (page.inner_text("#answers"), ranked(page)) != before
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    until(page, "document.getElementById('plot').dataset.axis === 'total'")
    assert "full’s total FLOPs" in page.inner_text("h1")
    page.click("summary:has-text('Task')")
    page.click(".menu a:has-text('nano_math')")
    assert page.url.endswith("nano-math.html#axis=total")
    page.wait_for_selector(".live-chart svg")
    page.check("#axis input[value='layers']", force=True)
    until(page, "document.getElementById('plot').dataset.axis === 'layers'")
    assert "#" not in page.url and "half of the layers" in page.inner_text("h1")


def test_a_line_of_the_ranking_opens_to_all_its_settings(watched, site):
    page = watched.open(site / "nano-summary.html")
    page.click("#ranking tr[data-s='hidden_router'] .open")
    page.wait_for_selector("tr.more .opened")
    opened = page.locator("tr.more")
    assert opened.locator("table tbody tr").count() == 3
    assert "dlbench run --model nano --task nano_summary --method hidden_router" in opened.inner_text()
    assert opened.locator("svg.strip-map rect").count() == 3 * 16
    page.click("#ranking tr[data-s='hidden_router'] .open")
    assert opened.is_hidden()


def test_a_row_is_compared_with_all_others_and_ticked_rows_are_laid_over(watched, site):
    page = watched.open(site / "nano-summary.html", unfold=True)
    page.click("#static-skip-50 .rank")  # a click on a figure starts nothing
    assert "cmp" not in page.url
    page.click("[data-compare='static-skip-50']")
    page.wait_for_selector("td.versus")
    assert "cmp=static-skip-50" in page.url
    assert page.locator("#static-skip-50.base").count() == 1
    verdicts = page.locator("td.versus b").all_inner_texts()
    assert {one.strip() for one in verdicts} <= {"▲", "▼", "≈"}
    assert page.locator("#random-skip-50.lost").count() == 1
    assert page.locator("#full.lost").count() == 0
    page.check("[data-tick='hidden-router-50']")
    page.check("[data-tick='random-skip-50']")
    page.wait_for_selector(".matrix canvas")
    tally = page.locator(".matrix tr", has_text="random_skip").inner_text()
    won, lost, equal = (int(re.search(rf"(\d+) {word}", tally).group(1)) for word in ("better", "worse", "equal"))
    assert won + lost + equal == 20 and lost > won
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_selector(".matrix canvas")
    assert page.locator("td.versus").count() > 10
    page.get_by_role("button", name="Stop comparing").click()
    page.get_by_role("button", name="Clear").click()
    assert page.locator("td.versus").count() == 0
    assert page.locator("#strip").is_hidden()


def test_a_cell_of_the_matrix_leads_to_the_document(watched, site):
    page = watched.open(site / "nano-math.html", "#tick=static-exit-50")
    page.wait_for_selector(".matrix canvas")
    page.locator(".matrix canvas").click(position={"x": 4, "y": 8})
    page.wait_for_url("**/samples/nano-math/static-exit-50.html#d-*")
    anchor = page.url.split("#")[1]
    assert page.locator(f"[id='{anchor}']").is_visible()


def test_the_legend_lights_series_up_and_switches_them_off(watched, site):
    page = watched.open(site / "nano-summary.html")
    page.hover("#legend li[data-s='static_skip']")
    points = "[...document.querySelectorAll('.live-chart .mark-symbol path')]"
    until(page, f"{points}.filter(one => +one.getAttribute('opacity') < 0.5).length > 10")
    everything = page.evaluate(f"{points}.length")
    page.click("#legend li[data-s='static_skip'] button")
    until(page, f"{points}.length === {everything - 3}")
    assert page.get_attribute("#legend li[data-s='static_skip'] button", "aria-pressed") == "false"
    assert "off=static-skip" in page.url
    page.click("#legend li[data-s='static_skip'] button")
    until(page, f"{points}.length === {everything}")


STOPS = 12


def test_everything_works_by_keyboard_alone(watched, site):
    page = watched.open(site / "nano-summary.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = []
    for _ in range(STOPS - 1):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.name"))
        if page.evaluate("Boolean(document.activeElement.closest('#ranking-box'))"):
            break
    else:
        raise AssertionError(f"the ranking is more than {STOPS} stops away: {seen}")
    assert "find" in seen and "axis" in seen
    page.focus("#axis input:checked")
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('plot').dataset.axis === 'decode'")
    page.focus("#legend li button")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.closest('li').previousElementSibling !== null")
    page.focus("#ranking tr[data-s='hidden_router'] .open")
    page.keyboard.press("Enter")
    page.wait_for_selector("tr.more .opened")
    page.focus("#rows > summary")
    page.keyboard.press("Enter")
    page.focus("#table [data-sort=kept] button")
    page.keyboard.press("Enter")
    assert page.locator("#table th[data-sort='kept']").get_attribute("aria-sort") == "descending"
    page.focus("[data-compare='static-skip-50']")
    page.keyboard.press("Space")
    page.wait_for_selector("td.versus")
    page.focus("[data-tick='static-skip-50']")
    page.keyboard.press("Space")
    page.wait_for_function("location.hash.includes('tick=static-skip-50')")
    # What has the focus can be seen to have it.
    page.focus("#find")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_a_link_leads_to_a_row_and_to_a_document(watched, site):
    page = watched.open(site / "nano-summary.html", "#line=unified-skip-25")
    assert page.locator("#unified-skip-25.lit").is_visible()
    page = watched.open(site / "nano-summary.html", "#static-exit-75", live=False)
    page.reload()
    assert page.locator("#static-exit-75").is_visible()
    assert page.evaluate("document.getElementById('static-exit-75').getBoundingClientRect().top") < 900
    page = watched.open(site / SAMPLES, "#d-nano-math-7", live=False)
    assert page.evaluate("Math.abs(document.getElementById('d-nano-math-7').getBoundingClientRect().top)") < 900


def test_samples_are_searched_filtered_and_their_maps_speak(watched, site):
    page = watched.open(site / SAMPLES, live=False)
    page.click("[data-verdict='worse']")
    assert page.locator("article:visible").count() == page.locator("article[data-v='worse']").count() > 0
    page.click("[data-verdict='worse']")
    page.fill("#find", "house 17")
    assert page.locator("article:visible").count() == 1
    page.locator("article:visible img.map").hover(position={"x": 30, "y": 20})
    tip = page.inner_text(".tip")
    assert "token 3" in tip and "ran 8 of 16 layers: 0 1 2 3 4 5 6 7" in tip


@pytest.mark.parametrize("watched", [{"java_script_enabled": False}], indirect=True)
def test_without_scripts_the_page_is_whole(watched, site):
    page = watched.open(site / "nano-summary.html", live=False)
    assert page.locator("svg.chart").is_visible()
    assert page.locator("#ranking > tbody > tr:visible").count() > 8 and page.locator(".answer:visible").count() == 3
    page.click("#rows > summary")
    assert page.locator("#table tbody tr[id]:visible").count() > 25
    assert page.locator("#find, #axis, #theme, #copy").filter(visible=True).count() == 0
    page.click("summary:has-text('Task')")
    page.click(".menu a:has-text('nano_math')")
    assert page.url.endswith("nano-math.html")
    page.click("#ranking tr[data-s='static_exit'] >> text=samples")
    assert page.locator("del").count() and page.locator("img.map").count()


@pytest.mark.parametrize("watched", [{"color_scheme": "dark"}, {"color_scheme": "light"}], indirect=True)
def test_text_stands_out_in_light_and_dark(watched, site):
    page = watched.open(site / "index.html")
    dark = page.evaluate("dlbench.dark()")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(22, 24, 28)" if dark else "rgb(255, 255, 254)")
    ink = page.evaluate("getComputedStyle(document.querySelector('.live-chart .role-axis-label text')).fill")
    assert ink == ("rgb(168, 173, 184)" if dark else "rgb(86, 91, 101)")
    page.click("#theme")
    until(page, f"dlbench.dark() === {'false' if dark else 'true'}")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


@pytest.mark.parametrize("watched", [{"viewport": {"width": 400, "height": 800}}], indirect=True)
@pytest.mark.parametrize("path", [*PAGES, SAMPLES])
def test_four_hundred_pixels_are_enough(watched, site, path):
    page = watched.open(site / path, live=path in PAGES[:2])
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(browser, site, scheme):
    script = axe()
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900}, bypass_csp=True)
    page = context.new_page()
    for path in (*PAGES, SAMPLES):
        state = "#cmp=static-skip-50&tick=hidden-router-50" if path == "nano-summary.html" else ""
        page.goto(f"{(site / path).as_uri()}{state}")
        if path in PAGES[:2]:
            page.wait_for_selector(".live-chart svg")
        page.evaluate(script)
        if path in PAGES[:2]:
            page.click("#ranking tr[data-s='hidden_router'] .open")
            page.wait_for_selector("tr.more .opened")
            page.evaluate("document.querySelectorAll('details:not(.menu)').forEach(one => one.open = true)")
        found = page.evaluate("axe.run()")["violations"]
        assert [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in found] == [], path
    context.close()


def test_a_long_table_lays_out_its_first_rows_and_reaches_all(browser, tmp_path):
    full = np.full(6, 0.8)
    rows = [record("full", scores=full, full=full, run={"budget": None})]
    for place in range(310):
        scores, share = full * (0.2 + 0.002 * place), 0.2 + 0.002 * place
        run = {"budget": 0.01 * (1 + place % 31)}
        rows.append(record(f"m{place // 31}", scores=scores, full=full, run=run, compute={"layer_share": share}))
    write_lines(tmp_path / "run" / "records.jsonl", rows)
    site = build(read_board([tmp_path / "run"]), tmp_path / "site").parent
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = Watched(context.new_page())
    page = watched.open(site / "nano-summary-all.html", unfold=True)
    assert len(shown(page)) == 100 and page.inner_text("#count") == "311 rows"
    page.locator("#table th[data-sort='kept'] button").click()
    assert shown(page)[:3] == ["full", "m9-31", "m9-30"] and len(shown(page)) == 100
    page.click("text=Show 100 more of 211")
    assert len(shown(page)) == 200
    page.fill("#find", "m0")
    assert shown(page) == [f"m0-{place}" for place in range(31, 0, -1)]
    page.fill("#find", "")
    page = watched.open(site / "nano-summary-all.html", "#line=m0-1")
    page.reload()
    page.wait_for_selector(".live-chart svg")
    assert page.locator("#m0-1.lit").is_visible()
    watched.assert_clean(site)
    context.close()


EVIL = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>"


def test_hostile_records_run_nothing(browser, tmp_path):
    run = synthetic_run(documents=4, tasks=["nano_math"])
    spoilt = {}
    for key, samples in run.samples.items():
        spoilt[key] = [
            one.model_copy(
                update={
                    "output": f"{EVIL} \u202egnp.exe\u202c \x00\x1b[31m" + "x" * 50_000,
                    "pieces": (EVIL, "\u202e", *one.pieces[2:]),
                }
            )
            for one in samples
        ]
    run.samples = spoilt
    run.asked = [one.model_copy(update={"prompt": EVIL, "references": (EVIL,)}) for one in run.asked]
    folder = run.write(tmp_path / "run")
    evil = record(EVIL, task="nano_math", method={"params": {EVIL: EVIL}}, notes=(EVIL,), env={EVIL: EVIL})
    write_lines(folder / "records.jsonl", [*run.records, evil])
    site = build(read_board([folder]), tmp_path / "site").parent
    context = browser.new_context()
    watched = Watched(context.new_page())
    for path in sorted(site.rglob("*.html")):
        page = watched.open(path, "#tick=static-skip-50&cmp=full" if path.name == "index.html" else "", live=False)
        page.wait_for_timeout(300 if path.name == "index.html" else 20)
        assert page.locator("img:not(.map)").count() == 0
        page.mouse.move(300, 300)
    # the evil record is of other documents, so the tables have longer names
    (shown,) = site.glob("samples/*/static-skip-50.html")
    page = watched.open(shown, live=False)
    assert EVIL in page.inner_text("article .text >> nth=0")
    assert "U+202E" in page.inner_text("article") and "U+001B" in page.inner_text("article")
    assert "more characters" in page.inner_text("article")
    page.hover("img.map", position={"x": 4, "y": 4})
    watched.assert_clean(site)
    context.close()
