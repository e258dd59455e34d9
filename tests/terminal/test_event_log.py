"""What a run tells machines."""

import json

from dlbench.terminal.event_log import EventLog
from dlbench.terminal.progress import Progress


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_progress_for_machines_is_json_only(tmp_path, capsys):
    with Progress(True, "json") as progress:
        progress.log.open(tmp_path)
        with progress.bar("decode", 3) as done:
            done(1, "a on b")
            done(2)
        with progress.stage("router", seconds=2.0) as say:
            say(1, 4)
        progress.note("cut")
    told = capsys.readouterr()
    assert told.out == "" and lines(told.err) == lines((tmp_path / "log.jsonl").read_text())
    assert [(one["event"], one.get("work")) for one in lines(told.err)] == [
        ("progress", "decode"),
        ("begun", "fit"),
        ("progress", "fit"),
        ("done", "fit"),
        ("note", None),
    ]
    assert lines(told.err)[0] | {"done": 1, "of": 3, "what": "a on b"} == lines(told.err)[0]
    assert json.loads((tmp_path / "state.json").read_text())["work"] == "fit"


def test_quiet_is_silent_and_other_processes_too(tmp_path, capsys):
    for progress in (Progress(True, "quiet"), Progress(False, "json", rank=2), Progress(False)):
        with progress, progress.bar("decode", 3) as done:
            progress.log.open(tmp_path)
            done(1, "a")
            progress.note("cut")
    assert capsys.readouterr().err == ""
    assert {one["rank"] for one in lines((tmp_path / "log.jsonl").read_text())} == {0, 2}


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    log = EventLog()
    log.open(tmp_path / "gone")
    log.event("note", text="x")
    log.state("decode", done=1)
    assert not (tmp_path / "gone").exists()
