import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from record_factory import record, synthetic_run

from dlbench.errors import DlbenchError, RecordError
from dlbench.leaderboard import site as sites
from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.charts import vega
from dlbench.leaderboard.charts.style import COLOURS
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.leaderboard.site import BoardError
from dlbench.records.schema import Record, Scores, Timing, Usage, read_lines, write_lines

EVIL = '<script>alert("1")</script>\'"><img src=x onerror=alert(1)> & {{ 7*7 }}'


def build(run_dirs, out):
    return sites.build(read_board(run_dirs), out)


def check(run_dirs, out):
    return sites.check(read_board(run_dirs), out)


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
    return synthetic_run(documents=12)


@pytest.fixture(scope="module")
def run_dir(run, tmp_path_factory):
    return run.write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def site(run_dir, tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    assert build([run_dir], out) == out / "index.html"
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


@pytest.fixture(scope="module")
def front(site, pages):
    return pages[site / "index.html"]


@pytest.fixture(scope="module")
def task(site, pages):
    return pages[site / "nano-summary.html"]


def words(page):
    return " ".join(page.text.split())


def test_pages_are_well_formed_and_every_link_leads_somewhere(site, pages):
    ids = {path: page.values("id") for path, page in pages.items()}
    for path, page in pages.items():
        assert page.open == []
        assert len(ids[path]) == len(set(ids[path]))
        for name in ("aria-labelledby", "for"):
            assert {one for value in page.values(name) for one in value.split()} <= set(ids[path])
        for link in [*page.values("href"), *page.values("src")]:
            if link.startswith(("https://arxiv.org/abs/", "data:")):
                continue
            file, _, anchor = link.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.is_file(), f"{path}: {link}"
            if anchor and "=" not in anchor and there.suffix == ".html":  # else it is the state of a page
                assert anchor in ids[there], f"{path}: {link}"


def test_pages_ask_nothing_of_the_network_and_run_only_the_sites_own_scripts(site, pages):
    for path, page in pages.items():
        assert not {"iframe", "object", "embed", "style", "base"} & set(page.tags)
        assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
        allowed = r"(\.\./)*assets/\w+\.js|data:image/png;base64,[\w+/=]+"
        assert all(re.fullmatch(allowed, source) for source in page.values("src"))
        assert not re.search(r"<script(?! src=)", path.read_text())
    css = (site / "assets" / "board.css").read_text()
    assert not re.search(r"url\(|@import", css)


def test_the_front_page_is_small_before_the_chart_script(site):
    first = [site / "index.html", *(site / "assets").glob("*.*")]
    assert sum(path.stat().st_size for path in first if path.name != "vega.js") < 350_000


def test_all_tasks_stand_together_first_and_each_has_a_page(run, site, front):
    tasks = {one.task.name for one in run.records}
    assert "all tasks" in words(front)
    assert all((site / f"{task.replace('_', '-')}.html").is_file() for task in tasks)
    labels = {value for value in front.values("data-s")}
    assert {"full", "nano-half", "static_skip", "oracle", "hidden_router · fixed_input"} <= labels
    # Only one task has it, so it has no mean over all of them.
    assert "oracle_cross (1 of 4)" in words(front)


def test_the_page_of_a_task_has_every_row_with_interval_status_and_times(run, task):
    rows = [one for one in run.records if one.task.name == "nano_summary"]
    assert len([value for value in task.values("data-b")]) == len(rows)
    text = words(task)
    assert "unreachable; closest setting: 0.41 of the layers" in text
    assert re.search(r"\d\d\.\d \[\d\d\.\d, \d\d\.\d\]", text)
    assert "time per token, batch 16" in text
    assert "Saved FLOPs are not saved time." in text
    assert "At 50 % of the layers, static_skip and static_exit cannot be told apart" in text  # by twelve documents
    assert not re.search(r"\b(nan|None|inf|Infinity)\b", text)


def test_charts_are_described_and_use_only_colours_that_have_a_dark_twin(site, front):
    assert "hidden_router at budget 0.5: keeps " in front.text
    light = [one for one, _ in COLOURS]
    assert len(set(light)) == len(COLOURS)
    drawings = re.findall(r'<svg [^>]*class="chart".*?</svg>', (site / "index.html").read_text(), flags=re.DOTALL)
    used = set(re.findall(r'(?:fill|stroke)="([^"]+)"', "".join(drawings)))
    assert drawings and used - set(light) <= {"none", "transparent"}


def test_method_pages_say_what_the_method_is_and_where_it_spends_layers(site, pages):
    page = pages[site / "methods" / "hidden-router.html"]
    text = words(page)
    assert "A trained controller decides per token and layer from the hidden state." in text
    assert "dlbench run --model nano --task nano_d2t" in text
    assert "--budget 0.25 --budget 0.5 --budget 0.75" in text
    assert "https://arxiv.org/abs/2410.20022" in page.values("href")
    assert "Where it spends layers" in text and "layer 3: " in text
    assert "budget 50 %, mean 8." in text
    assert "threshold" in text


def test_sample_pages_put_what_changed_most_first_and_mark_the_words(site, pages):
    page = pages[site / "samples" / "nano-math" / "static-exit-50.html"]
    shown = re.findall(r"exact_match ([01]) → ([01])", words(page))
    changed = [one != other for one, other in shown]
    assert len(shown) == 12
    assert changed == sorted(changed, reverse=True) and changed[0]
    html = (site / "samples" / "nano-math" / "static-exit-50.html").read_text()
    assert "<del>" in html and "<ins>" in html
    assert 'class="map"' in html and "Where does house 3 stand?" in html
    assert all(path.stat().st_size <= 200_000 for path in (site / "samples").rglob("*.html"))


def test_same_records_give_the_same_bytes_whatever_the_order(run, run_dir, site, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(run_dir, first)
    shutil.copytree(run_dir, second)
    write_lines(first / "records.jsonl", run.records[::2][::-1])
    write_lines(second / "records.jsonl", run.records[1::2] + run.records[:3])
    build([second, first], tmp_path / "site")
    files = sorted(str(path.relative_to(site)) for path in site.rglob("*") if path.is_file())
    assert files == sorted(str(p.relative_to(tmp_path / "site")) for p in (tmp_path / "site").rglob("*") if p.is_file())
    for name in files:
        assert (tmp_path / "site" / name).read_bytes() == (site / name).read_bytes(), name


@pytest.fixture
def small(tmp_path):
    """A site of one task and few documents, to be spoilt."""
    folder = synthetic_run(documents=3, tasks=["nano_math"]).write(tmp_path / "run")
    build([folder], tmp_path / "site")
    return folder, tmp_path / "site"


def test_check_tells_a_fresh_site_from_a_stale_one(small):
    folder, out = small
    assert check([folder], out) > 40
    (out / "notes.html").write_text("by hand")
    with pytest.raises(BoardError, match=r"notes\.html belongs to no site of these records"):
        check([folder], out)
    (out / "notes.html").unlink()
    page = out / "index.html"
    page.write_text(page.read_text().replace("static_skip", "static_hop"))
    with pytest.raises(BoardError, match=r"index\.html is stale.*dlbench board") as refusal:
        check([folder], out)
    assert "\n" not in str(refusal.value)
    page.unlink()
    with pytest.raises(BoardError, match=r"index\.html is missing"):
        check([folder], out)


def test_a_new_build_removes_what_an_earlier_one_left(small, tmp_path):
    folder, out = small
    (out / "kept.txt").write_text("not ours")
    (out / "manifest.json").write_text(json.dumps({"../run/records.jsonl": "", "samples/nano-math/full.html": ""}))
    write_lines(tmp_path / "bare" / "records.jsonl", [record()])
    build([tmp_path / "bare"], out)
    assert not (out / "samples" / "nano-math" / "full.html").exists()
    assert (out / "kept.txt").exists() and (folder / "records.jsonl").exists()


def test_downloads_hold_everything(run, site):
    assert {one.key for one in read_lines(site / "records.jsonl", Record)} == {one.key for one in run.records}
    assert len(list(read_lines(site / "timing.jsonl", Timing))) == len(run.timings)
    lines = (site / "records.csv").read_text().splitlines()
    assert len(lines) == len(run.records) + 1
    assert lines[0].startswith("task,track,label,method,deployable")
    board = json.loads((site / "board.json").read_text())
    keys = {key for view in board["views"] for row in view["rows"] for key in row["keys"]}
    assert keys == {one.key for one in run.records}
    assert r"hidden\_router $\cdot$ fixed\_input & " in (site / "tables" / "nano-summary.tex").read_text()
    assert "eprint = {2410.20022}" in (site / "dlbench.bib").read_text()


def test_spreadsheet_runs_no_formula_from_a_name(tmp_path):
    write_lines(tmp_path / "records.jsonl", [record("=cmd()")])
    build([tmp_path], tmp_path / "site")
    assert ",'=cmd()," in (tmp_path / "site" / "records.csv").read_text()


def test_one_bare_record_is_enough(tmp_path):
    write_lines(tmp_path / "records.jsonl", [record()])
    html = build([tmp_path], tmp_path / "site").read_text()
    assert "What the numbers say" not in html
    assert "timing.jsonl" not in html
    assert "The records here come without samples" in (tmp_path / "site" / "methods" / "static-skip.html").read_text()


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


def test_published_scores_and_usage_stand_in_for_samples(run_dir, site, tmp_path):
    public = tmp_path / "public"
    public.mkdir()
    for name in ("records.jsonl", "timing.jsonl"):
        shutil.copy(run_dir / name, public / name)
    runs = read_runs([run_dir])
    write_lines(public / "scores.jsonl", (Scores(key=key, scores=dict(each)) for key, each in runs.scores.items()))
    write_lines(public / "usage.jsonl", (Usage.model_validate(one) for one in runs.usage.values()))
    out = tmp_path / "site"
    build([public], out)
    for name in ("index.html", "board.json"):
        assert (out / name).read_bytes() == (site / name).read_bytes()
    heat = re.compile(r'<svg class="small-chart".*?</svg>', re.DOTALL)
    page = "methods/hidden-router.html"
    assert heat.findall((out / page).read_text()) == heat.findall((site / page).read_text()) != []
    assert not (out / "samples").exists()


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
    build([tmp_path], tmp_path / "site")
    for path in (tmp_path / "site").rglob("*.html"):
        page = Page(path.read_text())
        assert "img" not in page.tags
        assert all(source.endswith(".js") and "assets/" in source for source in page.values("src"))
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert EVIL in Page((tmp_path / "site" / "index.html").read_text()).text


def test_the_script_of_charts_is_bundled_once_per_user_and_never_needed_from_the_cache(tmp_path, monkeypatch):
    made = []

    def bundled(**_):
        made.append(1)
        return "vega\r\n"

    monkeypatch.setattr(vega.vl_convert, "javascript_bundle", bundled)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fresh = vega.bundle.__wrapped__
    assert [fresh(), fresh(), len(made)] == ["vega\r\n", "vega\r\n", 1]
    (kept,) = (tmp_path / "dlbench").iterdir()
    kept.write_bytes(b"\xff")
    assert (fresh(), len(made)) == ("vega\r\n", 2)  # one that cannot be read is made again
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    (tmp_path / "a file").write_text("")
    assert (fresh(), len(made)) == ("vega\r\n", 3)
