import os
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import count, islice

import psutil
import pytest
from record_factory import synthetic_run

from dlbench.cli import main
from dlbench.errors import RecordError
from dlbench.leaderboard import board as boards
from dlbench.leaderboard import workers as pool
from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.leaderboard.pages.site_files import site_files
from dlbench.leaderboard.workers import WorkerError, Workers, enough


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run = synthetic_run(documents=3, tasks=["nano_math", "nano_summary"])
    return run.write(tmp_path_factory.mktemp("run"))


def test_two_processes_give_the_same_files_in_the_same_order(run_dir):
    with Workers(2) as workers:
        shared = list(site_files(read_board([run_dir], workers), workers))
    assert shared == list(site_files(read_board([run_dir])))
    assert shared[-1][0] == "index.html"


def test_calls_start_as_results_are_taken_and_an_error_reaches_the_one_who_asked(tmp_path):
    numbers = count()
    with Workers(2) as workers:
        squares = workers.run(partial(pow, number, 2) for number in numbers)
        assert list(islice(squares, 5)) == [0, 1, 4, 9, 16]
        assert next(numbers) <= 5 + 2 * workers.processes
        with pytest.raises(RecordError, match=r"no records\.jsonl in it"):
            list(workers.run([partial(read_runs, [tmp_path])]))


def test_a_worker_that_was_killed_is_told_in_one_line():
    with Workers(2) as workers, pytest.raises(WorkerError, match="a worker of the board was killed") as refusal:
        list(workers.run([partial(os._exit, 1)]))
    assert "\n" not in str(refusal.value)


@pytest.fixture
def heeds_ctrl_c():
    """What a shell starts in the background ignores the signal, and so would the processes that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal to a process group")
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_ends_all_processes_with_one_line(run_dir, tmp_path):
    command = [sys.executable, "-m", "dlbench", "board", run_dir, "--out", tmp_path / "site", "--processes", "2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as build:
        while not (
            workers := [one for one in psutil.Process(build.pid).children() if "spawn_main" in str(one.cmdline())]
        ):
            time.sleep(0.01)
        os.killpg(build.pid, signal.SIGINT)
        assert build.stderr.read() == "dlbench: interrupted; the same command builds the board again\n"
    assert build.returncode == 130
    assert psutil.wait_procs(workers, timeout=10)[1] == []


def test_a_small_board_takes_one_process_and_a_large_one_several(run_dir, monkeypatch):
    monkeypatch.setattr(pool, "cores", lambda: 64)
    assert enough([run_dir]) == 1
    monkeypatch.setattr(pool, "LARGE", 10_000)
    assert enough([run_dir]) == pool.MOST


def test_one_command_reads_its_runs_once(run_dir, tmp_path, monkeypatch, capsys):
    read = []
    monkeypatch.setattr(boards, "read_runs", lambda run_dirs: read.append(run_dirs) or read_runs(run_dirs))
    index, site = tmp_path / "index.json", tmp_path / "site"
    assert main(["board", str(run_dir), "--text", "--index", str(index), "--out", str(site)]) == 0
    assert read == [[run_dir]]
    assert index.read_bytes() == (site / "board.json").read_bytes()
    assert main(["board", str(run_dir), "--index", str(index), "--out", str(site), "--check"]) == 0
    assert "as these records give it" in capsys.readouterr().out
