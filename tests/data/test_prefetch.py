"""`--offline` opens no socket, and official runs cut no prompt and take all documents."""

import json
import os
import subprocess
import sys
import time

import packed_run
import psutil
import pytest
import small_model

from dlbench.cli import main
from dlbench.records.jsonl import read_lines
from dlbench.records.schema import Record, Timing

# Stands before everything that Python runs, in the processes that a run starts too.
GUARD = """
import os, socket, sys

def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        where = arguments[0] if event != "socket.sendto" else arguments[1]
    elif event == "socket.connect" and arguments[0].family in (socket.AF_INET, socket.AF_INET6):
        where = arguments[1]
    else:
        return
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(f"{event} {where!r}\\n")
    raise OSError(f"{event}: there is no network here")

sys.addaudithook(refuse)
open(os.environ["GUARD_LOG"], "a").write("watching\\n")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("offline")
    small_model.save(root / "small")
    (root / "mirror" / "multi30k").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        lines = [{"input": f"wort {split} {i}", "references": [f"word {i}"]} for i in range(6)]
        (root / "mirror" / "multi30k" / f"{split}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (root / "guard").mkdir()
    (root / "guard" / "sitecustomize.py").write_text(GUARD)
    return root


def guarded(place, *line):
    log = place / "log"
    log.write_text("")
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"PYTHONPATH": str(place / "guard"), "GUARD_LOG": str(log), "HF_HOME": str(place / "hf")}
    done = subprocess.run([sys.executable, "-m", "dlbench", *line], env=env, capture_output=True, text=True, cwd=place)
    seen = log.read_text().splitlines()
    assert "watching" in seen
    return done, [entry for entry in seen if entry != "watching"]


def test_an_offline_run_opens_no_socket(place, tmp_path):
    """Quality, times and the board, in all processes of the run."""
    line = f"run --model {place / 'small'} --task multi30k --data-dir {place / 'mirror'} --limit 3 --offline"
    line += f" --method static_skip --budget 0.5 --max-new-tokens 4 --out {tmp_path / 'out'}"
    done, seen = guarded(place, *line.split())
    assert done.returncode == 0, done.stderr
    assert seen == []
    assert len(list(read_lines(tmp_path / "out" / "records.jsonl", Record))) == 2
    assert list(read_lines(tmp_path / "out" / "timing.jsonl", Timing))


@pytest.mark.slow
def test_commands_that_read_a_run_open_no_socket(place, tmp_path):
    submission = packed_run.packed(tmp_path)
    run = str(tmp_path / "run")
    for line, said in (
        (["list", "methods"], "hidden_router"),
        (["runs", run], "finished"),
        (["board", run], "index.html"),
        (["compare", run, "random_skip", "hidden_router"], "random_skip"),
        (["validate", str(submission)], "official"),  # it is no official one, which is one of the findings
    ):
        done, seen = guarded(place, *line)
        assert said in done.stdout + done.stderr and "Traceback" not in done.stderr, done.stderr
        assert seen == [], line


@pytest.mark.slow
def test_processes_of_one_run_are_heard_on_the_loopback_alone(place, tmp_path):
    """Looked at from outside: torch's own sockets are opened where no hook of Python sees them."""
    line = f"run --model {place / 'small'} --task multi30k --data-dir {place / 'mirror'} --limit 3 --offline"
    line += f" --method static_skip --budget 0.5 --max-new-tokens 4 --no-timing --processes 2 --out {tmp_path / 'out'}"
    with subprocess.Popen([sys.executable, "-m", "dlbench", *line.split()], stdout=subprocess.DEVNULL) as run:
        ours, seen = psutil.Process(run.pid), set()
        while run.poll() is None:
            try:
                for process in (ours, *ours.children(recursive=True)):
                    seen |= {end.ip for one in process.net_connections() for end in (one.laddr, one.raddr) if end}
            except psutil.Error:  # it has just ended
                continue
            time.sleep(0.02)
    assert run.returncode == 0
    assert seen and seen <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_data_that_is_not_there_is_one_line_and_no_socket(place, tmp_path):
    line = f"run --model {place / 'small'} --task samsum --method full --offline --out {tmp_path / 'out'}"
    done, seen = guarded(place, *line.split())
    assert seen == [] and done.returncode == 2
    assert "run `dlbench prefetch samsum --to DIR`" in done.stderr and done.stderr.count("\n") == 1


def test_the_guard_is_not_blind(place):
    log = place / "log"
    code = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: pass"
    env = {**os.environ, "PYTHONPATH": str(place / "guard"), "GUARD_LOG": str(log)}
    log.write_text("")
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert log.read_text().splitlines()[1:] == ["socket.getaddrinfo '127.0.0.1'"]


OFFICIAL = ["run", "--official", "--method", "full"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--limit", "32"], "limit 32: an official run takes all documents"),
        (["--seed", "1"], "--seed: the official protocol fixes it"),
        (["--fit-seeds", "1"], "--fit-seeds: the official protocol fixes it"),
        (["--max-new-tokens", "4"], "--max-new-tokens: the official protocol fixes it"),
        (["--no-timing"], "--no-timing: the official protocol fixes it"),
        (["--budget", "0.5"], "--budget: the official protocol fixes it"),
        (["--task", "nano_math"], "an official run takes whole suites, which would need nano_data2text"),
        (["--author", "A\nB"], "--author: give a name on one line"),
    ],
)
def test_an_official_run_refuses_what_the_protocol_fixes(tmp_path, capsys, options, said):
    assert main([*OFFICIAL, *options, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_official_run_takes_everything(tmp_path, monkeypatch):
    """All documents, three fits of what learns, and the controls; oracles are no part of it."""
    asked = []
    monkeypatch.setattr("dlbench.running.runner.execute", asked.append)
    assert main(["run", "--official", "--out", str(tmp_path / "out")]) == 0
    (spec,) = asked
    assert spec.limit is None and spec.fit_seeds == 3 and spec.budgets is None and spec.timing
    assert {"full", "random_skip", "unified_skip", "hidden_router"} <= set(spec.methods)
    assert "oracle" not in spec.methods


def test_prompts_longer_than_the_context_are_counted_and_refused_in_an_official_run(tmp_path, capsys):
    """Counted per sample, in the record, at the start and at the end; in an official run it does not start."""
    folder = small_model.save(tmp_path / "short", context=40)
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"input": "word " * n, "references": ["x"]}) + "\n" for n in range(1, 41)))
    line = ["run", "--model", str(folder), "--task", f"file:{path}", "--method", "full", "--max-new-tokens", "4"]
    line += ["--processes", "1"]
    assert main([*line, "--limit", "all", "--no-timing", "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    (record,) = read_lines(tmp_path / "out" / "records.jsonl", Record)
    cut = record.task.truncated
    assert 0 < cut < record.task.n == 32
    assert f"{cut} of 32 prompts were cut" in out and f"{cut} of 32 prompts do not fit the context of 40" in err
    folder = small_model.save(tmp_path / "longer", context=136)
    line = ["run", "--official", "--model", str(folder), "--method", "full", "--processes", "1"]
    assert main([*line, "--out", str(tmp_path / "official")]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert "prompts do not fit the context of 136 tokens, and an official run cuts none" in err
    assert not (tmp_path / "official").exists()
