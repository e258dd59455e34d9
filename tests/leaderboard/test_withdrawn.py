"""Rows that were withdrawn stay visible with the reason and are not ranked; old tracks and other machines are named."""

import re

from record_factory import record, synthetic_run

from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.data.apart import superseded
from dlbench.leaderboard.data.tracks import build_tracks
from dlbench.leaderboard.site import build
from dlbench.records.schema import Record

HERE = {"processor": "Slow", "cores": 2, "memory_bytes": 1}
THERE = {"processor": "Slow", "cores": 2, "memory_bytes": 1, "gpu": "Fast", "gpu_power_limit_watts": 700.0}

FIRST = {"hardware": THERE, "date": "2026-03-01"}
SECOND = {"hardware": HERE, "date": "2026-03-04"}


def bar(page):
    """What the bar of a page says beside its pickers."""
    return re.search(r'<span class="about" title="([^"]*)"', page.read_text())[1]


def test_a_withdrawn_row_is_shown_with_its_reason_and_not_ranked(tmp_path):
    run = synthetic_run(documents=10, tasks=["nano_math"])
    run.records = [
        r.model_copy(update={"withdrawn": "its fit saw test documents"}) if r.method.name == "static_skip" else r
        for r in run.records
    ]
    rows = [row for row in build_tracks(run.records)[0].rows if row.label == "static_skip"]
    assert rows and not any(row.ok for row in rows)
    assert all("withdrawn: its fit saw test documents" in row.remarks for row in rows)
    build(read_board([run.write(tmp_path / "run")]), tmp_path / "site")
    assert "its fit saw test documents" in (tmp_path / "site" / "index.html").read_text()
    lines = (tmp_path / "site" / "records.csv").read_text().splitlines()
    statuses = {line.split(",")[lines[0].split(",").index("status")] for line in lines[1:] if "static_skip" in line}
    assert statuses == {"withdrawn"}


def test_an_older_version_of_a_task_is_named_and_stays_apart():
    names = ["base=ab task=nano_math@9 protocol=3", "base=ab task=nano_math@10 protocol=3"]
    task = {"name": "nano_math", "metric": "exact", "n": 40}
    records = [
        Record.model_validate({**record(track=t).model_dump(by_alias=True), "task": {**task, "version": v}})
        for t, v in zip(names, ("9", "10"), strict=True)
    ]
    tracks = build_tracks(records)
    assert len(tracks) == 2
    (line,) = superseded(tracks)
    assert "version 9, are superseded by protocol 3, version 10" in line
    assert superseded(tracks[:1]) == []


def test_times_of_two_machines_are_never_mixed_and_both_are_named_with_their_days(tmp_path):
    run = synthetic_run(documents=10)
    task = run.timings[0].task
    run.timings = [
        t.model_validate({**t.model_dump(by_alias=True), **(FIRST if t.task == task else SECOND)}) for t in run.timings
    ]
    extra = [t.model_copy(update={"hardware": run.timings[-1].hardware}) for t in run.timings if t.task == task][:2]
    run.timings += extra  # few of the first task were timed on the other machine too
    for track in build_tracks(run.records, run.timings):
        machines = {t.machine for row in track.rows for t in row.timings.values()}
        assert len(machines) == 1 and ("Fast, 700 W" in machines.pop()) is (track.task.name == task)
    build(read_board([run.write(tmp_path / "run")]), tmp_path / "site")
    page = (tmp_path / "site" / "index.html").read_text()
    assert "Times come from 2 machines" in page and "Fast, 700 W" in page and "Slow, 2 cores" in page
    alone = [path for path in (tmp_path / "site").glob("*.html") if task.replace("_", "-") in path.name]
    assert alone and not any("Times come from" in path.read_text() for path in alone)  # that task has one machine
    assert [bar(path).split(" · ")[-2:] for path in alone] == [["2026-03-01", "Fast, 700 W"]]
    assert bar(tmp_path / "site" / "index.html").endswith(" · 2026-03-01 to 2026-03-04")
