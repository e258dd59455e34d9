"""`--config` and `dlbench runs`: a run from a file, and what is known of runs."""

import dataclasses
import json
import os

import pytest
from not_run import asked_of

from dlbench import cli
from dlbench.running.config import RunSpec
from dlbench.system.folder_lock import FolderLock
from dlbench.terminal.event_log import EventLog


@pytest.fixture
def ran(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return asked_of(monkeypatch)


FILES = {
    "run.yaml": "method: [full, static_skip]\nbudget: 0.5\nlimit: 8\nbatch-size: 4\n"
    "set: static_skip.share=0.5\ntiming: false\n",
    "run.toml": 'method = ["full", "static_skip"]\nbudget = [0.5]\nlimit = "8"\nbatch_size = 4\n'
    'set = ["static_skip.share=0.5"]\ntiming = false\n',
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_holds_a_run_and_the_command_line_goes_before(ran, tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    wanted = RunSpec(
        methods=("full", "static_skip"),
        budgets=(0.5,),
        limit=8,
        batch_size=4,
        settings={"static_skip": {"share": 0.5}},
        timing=False,
    )
    assert cli.main(["run", "--config", name]) == 0 and ran == [wanted]
    assert (
        cli.main(["run", "--limit", "first:3", "--config", name, "--timing", "--method", "full", "--set", "full.x=1"])
        == 2
    )
    assert cli.main(["run", "--limit", "first:3", "--config", name, "--timing", "--budget", "0.25"]) == 0
    assert ran[1:] == [dataclasses.replace(wanted, limit=3, limit_first=True, timing=True, budgets=(0.25,))]


RUNS = {
    "plain": [],
    "all": ["--limit", "all", "--official", "--batch-size", "3", "--processes", "2", "--refit"],
    "first": [
        "--limit",
        "first:4",
        "--method",
        "static_skip",
        "--set",
        "static_skip.share=0.25",
        "--kv",
        "evict",
        "--fewshot",
        "2",
    ],
}


@pytest.mark.parametrize("line", RUNS.values(), ids=RUNS)
def test_the_run_json_of_a_run_gives_that_run(ran, tmp_path, line):
    assert cli.main(["run", "--out", "there", *line]) == 0
    spec = json.loads(json.dumps(dataclasses.asdict(ran[0]), default=str))
    (tmp_path / "run.json").write_text(json.dumps({"dlbench": "1", "spec": spec}))
    assert cli.main(["run", "--config", "run.json"]) == 0
    assert ran[1] == ran[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.yaml", "limitt: 3\n", "unknown option 'limitt' in a.yaml"),
        ("a.yaml", "limit: [\n", "a.yaml: while parsing"),
        ("a.yaml", "limit: {a: 1}\n", "limit must be a text or a number"),
        ("a.yaml", "method: [[full]]\n", "method must be a text or a number or a list"),
        ("a.yaml", "!!python/object/apply:os.system ['false']\n", "could not determine a constructor"),
        ("a.toml", "limit = \n", "Invalid value"),
        ("a.json", "[1]", "give options by name"),
        ("a.json", " " * (1 << 21), "larger than 1,048,576 bytes"),
        ("a.txt", b"\xff", "can't decode byte"),
        ("b.yaml", None, "No such file or directory"),
    ],
)
def test_a_file_that_holds_no_run_is_refused_in_one_line(ran, tmp_path, capsys, name, content, said):
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert cli.main(["run", "--config", name]) == 2 and ran == []
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


def test_runs_are_listed_with_their_state(tmp_path, capsys):
    for name in ("done", "going", "stopped"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"spec": {"models": ["nano"], "tasks": ["a", "b\\u202e"]}}')
        log = EventLog()
        log.event("note", text="before the folder is known")
        log.open(tmp_path / name)
        log.state("decode", done=3, of=12, what="a on nano")
    (tmp_path / "done" / "records.jsonl").touch()
    lock = FolderLock(tmp_path / "going")
    lock.take()
    assert cli.main(["runs", str(tmp_path), "--json"]) == 0
    found = {os.path.basename(one["run"]): one for one in json.loads(capsys.readouterr().out)}
    assert {name: one["state"] for name, one in found.items()} == {
        "done": "finished",
        "going": "running",
        "stopped": "unfinished",
    }
    assert f"process {os.getpid()} on " in found["going"]["by"] and found["stopped"]["by"] == ""
    assert cli.main(["runs", str(tmp_path / "going"), str(tmp_path / "stopped")]) == 0
    said = capsys.readouterr().out
    assert "decode a on nano 3 of 12" in said and "\u202e" not in said
    lock.free()
    assert cli.main(["runs", str(tmp_path), "--follow"]) == 0  # none is going on any more
    assert "running" not in capsys.readouterr().out
    events = [json.loads(line) for line in (tmp_path / "going" / "log.jsonl").read_text().splitlines()]
    assert [one["event"] for one in events] == ["note", "progress"] and all(one["rank"] == 0 for one in events)
    assert cli.main(["runs", str(tmp_path / "done" / "none")]) == 2
    assert "no run there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ([("run", {})], "unfinished"),  # killed, such as while it took its times
        ([("run", {}), ("ended", {"by": "Stopped"})], "unfinished"),
        ([("run", {}), ("finished", {})], "finished"),
        ([("run", {}), ("ended", {"by": "RowsLeftOutError"})], "finished"),
        ([("run", {}), ("finished", {}), ("run", {})], "unfinished"),
        ([], "finished"),  # of an earlier release
    ],
)
def test_a_run_is_finished_when_its_log_says_so(tmp_path, capsys, told, state):
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "records.jsonl").touch()
    log, other = EventLog(), EventLog(rank=1)
    for one in (log, other):
        one.open(tmp_path)
    for kind, facts in told:
        log.event(kind, **facts)
    other.event("finished")  # of another process, which does not wait for the times
    assert cli.main(["runs", str(tmp_path), "--json"]) == 0
    assert [one["state"] for one in json.loads(capsys.readouterr().out)] == [state]
