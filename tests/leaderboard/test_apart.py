"""Runs of the same on other documents, or compared with another base: side by side, told apart, never mixed."""

import csv
import io

import pytest
from page_tables import page_rows
from record_factory import record, synthetic_run

from dlbench import cli
from dlbench.errors import RecordError
from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.data.apart import apart
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.site import build

TASK = "nano_summary"
FIGURES = ("label", "budget", "quality", "retained", "retained_low", "retained_high", "rank", "rank_low", "rank_high")


def figures(site):
    """Return what the table says, by number of documents."""
    rows = {}
    for row in csv.DictReader(io.StringIO((site / "records.csv").read_text(encoding="utf-8"))):
        rows.setdefault(int(row["documents"]), []).append(tuple(row[name] for name in FIGURES))
    return {documents: sorted(some) for documents, some in rows.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the folders of one run on 40 documents and on 12, and the sites of each alone and of both."""
    folder = tmp_path_factory.mktemp("runs")
    large = synthetic_run(documents=40, tasks=[TASK]).write(folder / "large")
    small = synthetic_run(documents=12, tasks=[TASK], seed=3).write(folder / "small")
    sites = {}
    for name, some in {"large": [large], "small": [small], "both": [large, small], "turned": [small, large]}.items():
        sites[name] = folder / f"site-{name}"
        build(read_board(some), sites[name])
    return large, small, sites


def test_runs_on_other_documents_stand_side_by_side_with_the_figures_that_they_have_alone(runs):
    large, small, sites = runs
    keys = [{one.key for one in read_runs([folder]).records} for folder in (large, small)]
    assert len(keys[0] & keys[1]) > 5  # of these, nothing but the documents tells the results apart
    assert figures(sites["both"]) == figures(sites["large"]) | figures(sites["small"])
    both = read_runs([large, small])
    assert len({one.key for one in both.records}) == len(both.records) == sum(map(len, keys))
    assert {len(both.scores[one.key]) == one.task.n for one in both.records} == {True}
    assert all(len(rows) == len(page_rows((sites["both"] / name).read_text())) for name, rows in _pages(sites))


def _pages(sites):
    for name, alone in (("index.html", "large"), ("nano-summary-2.html", "small")):
        yield name, page_rows((sites[alone] / "index.html").read_text())


def test_the_order_of_the_folders_is_no_matter(runs):
    _, _, sites = runs
    both, turned = (
        {one.relative_to(sites[name]): one.read_bytes() for one in sites[name].rglob("*") if one.is_file()}
        for name in ("both", "turned")
    )
    assert both == turned


def test_what_differs_is_said_on_the_page_and_by_the_command(runs, tmp_path, capsys):
    large, small, sites = runs
    assert cli.main(["board", str(small), str(large), "--out", str(tmp_path / "site")]) == 0
    said = capsys.readouterr().err
    told = "rows over different documents stand in tables of their own, never compared: 40 documents (27 rows)"
    assert said.startswith(f"{TASK} on nano: {told}; 12 documents (27 rows)"), said
    page = (sites["both"] / "index.html").read_text()
    assert told in page and f"{TASK}, 12 documents" in page


def test_other_figures_for_the_same_documents_are_still_refused(tmp_path):
    one = synthetic_run(documents=12, tasks=[TASK], seed=3).write(tmp_path / "one")
    other = synthetic_run(documents=12, tasks=[TASK], seed=4).write(tmp_path / "other")
    with pytest.raises(RecordError, match="line 1: other figures for the same result than in"):
        read_runs([one, other])


def test_the_first_documents_are_others_than_a_sample_of_as_many():
    first, sample = (record(task=TASK) for _ in range(2))
    first, sample = (
        one.model_copy(update={"task": one.task.model_copy(update={"drawn": drawn, "of": 250})})
        for one, drawn in ((first, "first"), (sample, "sample"))
    )
    tracks = build_tracks([first, sample])
    assert [len(track.rows) for track in tracks] == [1, 1]
    (line,) = apart(tracks)
    assert "a sample of 40 of 250 documents (1 row); the first 40 of 250 documents (1 row)" in line
    assert apart(tracks[:1]) == []


@pytest.mark.slow
def test_a_smaller_dense_model_alone_is_compared_with_itself(tmp_path, capsys):
    """And stands beside the run in which it is compared with the larger one, each with its own shares."""
    folders = {name: tmp_path / name for name in ("nano", "nano-half")}
    for name, folder in folders.items():
        line = f"run --model {name} --task nano_summary --method static_skip --budget 0.5 --limit 6 --no-timing"
        assert cli.main([*line.split(), "--processes", "1", "--out", str(folder)]) == 0
    alone = read_board([folders["nano-half"]])
    (track,) = alone.tracks
    assert [(row.role, row.label) for row in track.rows] == [("full", "full"), ("method", "static_skip")]
    assert [row.record.quality.retained is not None for row in track.rows] == [True, True]
    assert alone.views[0].backbone == "nano-half"
    assert any("the base backbone did not run" in note for note in track.rows[0].record.notes)
    capsys.readouterr()
    assert cli.main(["board", *map(str, folders.values()), "--text", "--out", str(tmp_path / "site")]) == 0
    shown = capsys.readouterr()
    assert "nano_summary: nano-half ran alone too, compared with its own full depth" in shown.err
    assert "nano_summary on nano-half" in shown.out
    both = read_board(list(folders.values()))
    assert {(view.backbone, len(view.entries)) for view in both.views} == {("nano", 3), ("nano-half", 2)}
    (dense,) = [entry for view in both.views if view.backbone == "nano" for entry in view.of("dense")]
    (own,) = [entry for view in both.views if view.backbone == "nano-half" for entry in view.of("full")]
    assert dense.score == own.score and own.costs["layers"] == 1 and dense.costs["layers"] == 0.5
