"""`--track`: what trackers are told of a run, and that nothing in them ends it."""

import importlib.machinery
import json
import sys
import types

import pytest
from record_factory import synthetic_run

from dlbench import cli
from dlbench.errors import DlbenchError
from dlbench.leaderboard.columns.column import TableInfo
from dlbench.leaderboard.columns.row_columns import row_columns
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record
from dlbench.tracking import tracker
from dlbench.tracking.rows import figures, rows_of, title
from dlbench.tracking.tracker import TrackedRun
from dlbench.tracking.trackers import Trackers

TASK = "nano_summary"


@pytest.fixture
def rows():
    run = synthetic_run(documents=12, tasks=[TASK])
    return rows_of(run.records, run.timings)


class FakeRun:
    """What `wandb.init` returns."""

    def __init__(self, **given):
        self.given, self.logged, self.summary, self.code = given, [], {}, None

    def log(self, values):
        self.logged.append(values)

    def finish(self, exit_code):
        self.code = exit_code


def module(name, **members):
    fake = types.ModuleType(name)
    fake.__spec__ = importlib.machinery.ModuleSpec(name, None)
    for member, value in members.items():
        setattr(fake, member, value)
    return fake


@pytest.fixture
def wandb(monkeypatch):
    """A package that keeps what it is told; its runs."""
    runs = []

    def init(**given):
        runs.append(FakeRun(**given))
        return runs[-1]

    fake = module("wandb", init=init, Table=lambda **given: given, Settings=lambda **given: given)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delitem(sys.modules, "dlbench.tracking.to_wandb", raising=False)
    return runs


@pytest.fixture
def trackio(monkeypatch):
    told = []
    fake = module(
        "trackio",
        init=lambda **given: told.append(("init", given)),
        log=lambda values: told.append(("log", values)),
        finish=lambda: told.append(("finish", None)),
        Table=lambda dataframe: dataframe,
    )
    monkeypatch.setitem(sys.modules, "trackio", fake)
    monkeypatch.delitem(sys.modules, "dlbench.tracking.to_trackio", raising=False)
    return told


def carried_out(name, folder, rows, *, ok=True):
    """Show a run in one tracker, from begin to end."""
    trackers = Trackers([name], pytest.fail)
    trackers.begin(TrackedRun("mine", folder, {"seed": 3, "models": ["nano"]}, offline=True))
    for done in range(5):
        trackers.advance("decode", done, 4)
    trackers.rows(rows)
    trackers.end(ok)
    trackers.end(ok=False)  # a second end says nothing


def test_a_row_per_record_with_the_figures_of_the_record():
    run = synthetic_run(documents=12, tasks=[TASK])
    by_key = {one.key: one for one in run.records}
    rows = rows_of(run.records, run.timings)
    assert {row["key"] for row in rows} == set(by_key) and len(rows) == len(by_key)
    assert len({title(row) for row in rows}) == len(rows)
    for row in rows:
        record = by_key[row["key"]]
        assert (row["quality"], row["retained"]) == (record.quality.mean, record.quality.retained)
        assert (row["retained_low"], row["retained_high"]) == (record.quality.retained_ci95 or (None, None))
        assert row["layer_share"] == record.compute.layer_share
        assert row["flop_share_total"] == record.compute.flop_share_total
        timed = {one.batch_size: one for one in run.timings if one.key == record.key}
        assert {b: row[f"speedup_b{b}"] for b in (1, 16)} == {
            b: timed[b].speedup if b in timed else None for b in (1, 16)
        }
    named = {one.cell("csv").title for one in row_columns("csv", TableInfo(batches=(1, 16)))}
    assert rows[0].keys() <= named, "the board's CSV has other names for these"
    assert {"retained", "flop_share_decode", "speedup_b1"} <= figures(rows[0]).keys()


def test_wandb_is_told_config_progress_and_rows(wandb, rows, tmp_path):
    carried_out("wandb", tmp_path, rows)
    (run,) = wandb
    assert run.given["config"] == {"seed": 3, "models": ["nano"]} and run.given["name"] == "mine"
    assert run.given["mode"] == "offline" and run.given["dir"] == str(tmp_path)
    *progress, table = run.logged
    assert [one["progress/decode"] for one in progress] == [0.0, 1.0]  # at most every two seconds, and the end
    assert len(table["rows"]["data"]) == len(rows) and table["rows"]["columns"] == list(rows[0])
    assert run.summary[f"{title(rows[-1])}/retained"] == rows[-1]["retained"]
    assert run.code == 0
    carried_out("wandb", tmp_path, [], ok=False)
    assert wandb[1].code == 1


def test_trackio_is_told_config_progress_and_rows(trackio, rows, tmp_path):
    carried_out("trackio", tmp_path, rows)
    (first, init), *logged, last = trackio
    assert (first, last) == ("init", ("finish", None))
    assert init["config"] == {"seed": 3, "models": ["nano"]} and not init["auto_log_cpu"]
    tables = [values["rows"] for _, values in logged if "rows" in values]
    assert [table.to_dict("records") for table in tables] == [rows]  # None stays None
    told = {name: value for _, values in logged for name, value in values.items()}
    assert told["progress/decode"] == 1.0 and told[f"{title(rows[0])}/quality"] == rows[0]["quality"]


def test_tensorboard_has_figures_over_the_budget(rows, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    carried_out("tensorboard", tmp_path, rows)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for label in ("static_skip", "unified_skip"):
        wanted = {round(100 * row["budget"]): row["retained"] for row in rows if row["label"] == label}
        shown = {one.step: one.value for one in events.Scalars(f"{TASK}/retained/{label}")}
        assert shown == pytest.approx(wanted) and len(shown) == 3
    assert [one.value for one in events.Scalars("progress/decode")] == [0.0, 1.0]
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    assert '"seed": 3' in texts["config/text_summary"] and texts["ended/text_summary"] == "finished"
    assert texts["rows/text_summary"].count("\n") == len(rows) + 1


def test_a_missing_package_and_an_unknown_tracker_are_one_line(monkeypatch, capsys):
    monkeypatch.setattr(tracker, "find_spec", lambda name: None)
    assert cli.main(["run", "--track", "trackio"]) == 2
    assert capsys.readouterr().err.strip() == (
        "dlbench: --track trackio: its package is missing; pip install 'dlbench[trackio]'"
    )
    assert cli.main(["run", "--track", "wandbb"]) == 2
    said = capsys.readouterr().err.strip()
    assert "wandb" in said and "\n" not in said


def test_what_a_tracker_raises_at_the_beginning_is_one_line_and_later_ends_nothing(wandb, rows, tmp_path, monkeypatch):
    notes = []
    trackers = Trackers(["wandb"], notes.append)
    run = TrackedRun("mine", tmp_path, {}, offline=False)
    trackers.begin(run)
    assert "mode" not in wandb[0].given  # WANDB_MODE and the login decide
    monkeypatch.setattr(wandb[0], "log", lambda values: 1 / 0)
    trackers.rows(rows)
    trackers.rows(rows)
    assert notes == ["wandb failed, and the run goes on without it: division by zero"]

    def refused(**given):
        raise RuntimeError("no key\nfor it")

    monkeypatch.setattr(sys.modules["wandb"], "init", refused)
    with pytest.raises(DlbenchError, match="--track wandb: no key for it; --offline keeps it on this machine"):
        Trackers(["wandb"], notes.append).begin(run)


def test_a_run_is_tracked_by_command_and_from_python(wandb, tmp_path):
    import dlbench

    line = f"run --task {TASK} --method static_skip --budget 0.5 --limit 2 --no-timing --processes 1 --track wandb"
    assert cli.main([*line.split(), "--out", str(tmp_path / "one")]) == 0
    results = dlbench.run(
        "nano", TASK, "static_skip", 0.5, limit=2, timing=False, processes=1, out=tmp_path / "two", track="wandb"
    )
    by_command, by_python = wandb
    records = list(read_lines(tmp_path / "one" / "records.jsonl", Record))
    for run, name in ((by_command, "one"), (by_python, "two")):
        assert run.given["name"] == name and run.code == 0
        assert run.given["config"]["methods"] == ["static_skip"] and run.given["config"]["limit"] == 2
        table = next(one["rows"] for one in run.logged if "rows" in one)
        keys = table["columns"].index("key")
        assert sorted(row[keys] for row in table["data"]) == sorted(record.key for record in records)
        assert [one["progress/decode"] for one in run.logged if "progress/decode" in one][-1] == 1.0
    assert len(results) == len(records) == 3
    assert "track" not in json.loads((tmp_path / "one" / "run.json").read_text())["spec"]
