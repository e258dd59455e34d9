import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from record_factory import record, synthetic_run

from dlbench.errors import DlbenchError
from dlbench.leaderboard.chart import COLOURS
from dlbench.leaderboard.runs import read_runs
from dlbench.leaderboard.site import BoardError, build
from dlbench.records import Record, RecordError, Scores, Timing, read_lines, write_lines

EVIL = '<script>alert("1")</script>\'"><img src=x onerror=alert(1)> & {{ 7*7 }}'


class Page(HTMLParser):
    """Collects what a browser would load, run or link to."""

    VOID = frozenset({"meta", "br", "img", "link", "input", "hr", "base"})

    def __init__(self, html):
        super().__init__()
        self.tags, self.open, self.attributes, self.text = [], [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [value for _, attribute, value in self.attributes if attribute == name]


@pytest.fixture(scope="module")
def run():
    return synthetic_run(documents=40)


@pytest.fixture(scope="module")
def run_dir(run, tmp_path_factory):
    return run.write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def site(run_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    assert build([run_dir], out) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def html(site):
    return (site / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_page_is_well_formed_and_every_id_and_link_inside_it_holds(page):
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    inside = {value[1:] for value in page.values("href") if value.startswith("#")}
    assert inside <= set(ids)
    assert {name for value in page.values("aria-labelledby") for name in value.split()} <= set(ids)


def test_page_asks_nothing_of_the_network_and_runs_nothing(html, page):
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    assert page.values("src") == []
    assert not re.search(r"url\((?!#)|@import", html)
    outside = [value for value in page.values("href") if not value.startswith("#")]
    assert sorted(outside) == ["records.csv", "records.jsonl", "timing.jsonl"]
    elsewhere = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert elsewhere <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert len(html.encode()) < 350_000


def test_every_task_has_a_titled_chart_and_its_tables(run, page):
    tasks = {one.task.name for one in run.records}
    charts = [value for value in page.values("class") if value == "chart"]
    assert len(charts) == page.tags.count("figure") == len(tasks)
    assert page.tags.count("table") == page.tags.count("caption") == 2 * len(tasks)
    assert "nano_d2t: rougeL against total FLOPs" in page.text
    assert "static_skip at budget 0.5: rougeL" in page.text  # what hovering over a point shows
    rows = [value for value in page.values("id") if re.fullmatch(r"nano-\w+-\d+", value)]
    assert len(rows) == len(run.records)


def test_charts_use_only_colours_that_have_a_dark_twin(html):
    light = [one for one, _ in COLOURS]
    assert len(set(light)) == len(COLOURS)
    drawings = re.findall(r'<svg [^>]*class="chart".*?</svg>', html, flags=re.DOTALL)
    used = set(re.findall(r'(?:fill|stroke)="([^"]+)"', "".join(drawings)))
    assert used - set(light) <= {"none", "transparent"}


def test_page_shows_intervals_status_times_and_comparisons(page):
    text = " ".join(page.text.split())
    assert "At 50 % of the layers, skipping beats exiting by " in text
    assert "unreachable; closest setting: 0.41 of the layers" in text
    assert re.search(r"0\.\d\d \[0\.\d\d, 0\.\d\d\]", text)
    assert "batch 16" in text
    assert "Saved FLOPs are not saved time." in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_same_records_give_the_same_bytes_whatever_the_order(run, run_dir, site, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(run_dir, first)
    shutil.copytree(run_dir, second)
    write_lines(first / "records.jsonl", run.records[::2][::-1])
    write_lines(second / "records.jsonl", run.records[1::2] + run.records[:3])
    build([second, first], tmp_path / "site")
    for name in ("index.html", "records.jsonl", "records.csv", "timing.jsonl"):
        assert (tmp_path / "site" / name).read_bytes() == (site / name).read_bytes()


def test_downloads_hold_everything(run, site):
    assert {one.key for one in read_lines(site / "records.jsonl", Record)} == {one.key for one in run.records}
    assert len(list(read_lines(site / "timing.jsonl", Timing))) == len(run.timings)
    lines = (site / "records.csv").read_text().splitlines()
    assert len(lines) == len(run.records) + 1
    assert lines[0].startswith("task,track,label,method,deployable")


def test_hostile_strings_are_shown_not_run(tmp_path):
    evil = record(
        EVIL,
        task=EVIL,
        track=EVIL,
        backbone={"name": EVIL, "family": EVIL},
        method={"params": {EVIL: EVIL}, "kind": EVIL},
        notes=(EVIL, "=1+1"),
        env={EVIL: EVIL},
    )
    write_lines(tmp_path / "records.jsonl", [evil, record("full", task=EVIL, track=EVIL)])
    html = build([tmp_path], tmp_path / "site").read_text()
    page = Page(html)
    assert not {"script", "img"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert EVIL in page.text


def test_spreadsheet_runs_no_formula_from_a_name(tmp_path):
    write_lines(tmp_path / "records.jsonl", [record("=cmd()")])
    build([tmp_path], tmp_path / "site")
    assert ",'=cmd()," in (tmp_path / "site" / "records.csv").read_text()


def test_one_bare_record_is_enough(tmp_path):
    write_lines(tmp_path / "records.jsonl", [record()])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "timing.jsonl").write_text("left by an earlier build")
    html = build([tmp_path], tmp_path / "site").read_text()
    assert "What the numbers say" not in html
    assert "timing.jsonl" not in html
    assert not (tmp_path / "site" / "timing.jsonl").exists()


def test_nothing_reached_means_no_chart_but_a_page(tmp_path):
    bare = record(status="unreachable", quality=None, compute=None)
    write_lines(tmp_path / "records.jsonl", [bare])
    assert "no point to draw" in build([tmp_path], tmp_path / "site").read_text()


def test_records_of_two_versions_raise_a_banner(tmp_path):
    write_lines(
        tmp_path / "records.jsonl", [record(env={"dlbench": "0.1.0"}), record("full", env={"dlbench": "0.2.0"})]
    )
    assert "different versions of dlbench (0.1.0, 0.2.0)" in build([tmp_path], tmp_path / "site").read_text()


def test_cut_prompts_are_shown(tmp_path):
    one = record()
    cut = one.model_copy(update={"task": one.task.model_copy(update={"truncated": 3})})
    write_lines(tmp_path / "run" / "records.jsonl", [cut])
    html = build([tmp_path / "run"], tmp_path / "site").read_text()
    assert html.count("nano_summary on nano: 3 of 40 prompts were cut to fit the context") == 1


def test_bad_input_is_refused_and_nothing_written(run_dir, tmp_path):
    out = tmp_path / "site"
    with pytest.raises(RecordError, match="no run folder"):
        build([], out)
    with pytest.raises(RecordError, match=r"no records\.jsonl"):
        build([tmp_path], out)
    broken = tmp_path / "broken"
    broken.mkdir()
    good = (run_dir / "records.jsonl").read_text().splitlines()
    (broken / "records.jsonl").write_text("\n".join([*good[:2], "{}", good[3]]))
    with pytest.raises(RecordError, match=r"broken/records\.jsonl, line 3: "):
        build([run_dir, broken], out)
    changed = json.loads(good[0])
    changed["quality"]["mean"] += 0.5
    (broken / "records.jsonl").write_text(json.dumps(changed))
    with pytest.raises(RecordError, match=r"line 1: other figures for the same result than in .*line 1"):
        build([run_dir, broken], out)
    assert not out.exists()


def test_out_must_be_a_place_for_a_site(run_dir, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", run_dir):
        with pytest.raises(BoardError) as refusal:
            build([run_dir], out)
        assert isinstance(refusal.value, DlbenchError)


def test_published_scores_stand_in_for_samples(run_dir, site, tmp_path):
    public = tmp_path / "public"
    public.mkdir()
    for name in ("records.jsonl", "timing.jsonl"):
        shutil.copy(run_dir / name, public / name)
    scores = read_runs([run_dir]).scores
    write_lines(public / "scores.jsonl", (Scores(key=key, scores=dict(each)) for key, each in scores.items()))
    assert build([public], tmp_path / "site").read_bytes() == (site / "index.html").read_bytes()
