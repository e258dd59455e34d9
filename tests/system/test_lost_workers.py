"""A lost worker is named; none outlives its parent; a scheduler's signal ends all in time."""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dlbench.errors import WorkerLost
from dlbench.system import processes, watching

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc as on Linux")

WORKER = """
import json, os, pathlib, signal, sys, time
from dlbench.system import lifeline, process_group, stopping
from dlbench.system.processes import ended_by

path = pathlib.Path(sys.argv[1])
spec, rank = json.loads(path.read_text()), process_group.rank()

def works():
    if rank == 1 and spec["fault"] in ("SIGKILL", "SIGSTOP"):
        os.kill(os.getpid(), getattr(signal, spec["fault"]))
    if rank == 1 and spec["fault"] == "limit":
        raise stopping.Stopped(stopping.OVER)
    if rank == 0 and spec["fault"] == "stuck":
        gather_object([rank])
    time.sleep(60)

if spec["fault"] == "stuck":
    from accelerate import PartialState
    from accelerate.utils import gather_object

    PartialState(cpu=True)
lifeline.works_on(f"toy:{rank}")
try:
    with stopping.by_signals():
        time.sleep(0.3)  # a word is left at once
        pathlib.Path(spec["out"], f"{rank}.pid").write_text(str(os.getpid()))
        works()
except BaseException as error:
    sys.exit(ended_by(path, error))
"""
PARENT = """
import pathlib, sys
from test_lost_workers import Spec
from dlbench.system import processes, stopping

try:
    with stopping.by_signals():
        processes.launch("launched", Spec(sys.argv[1], sys.argv[2]), 2, "run")
except stopping.Stopped as stopped:
    print(stopped)
    sys.exit(stopping.EXIT_CODE)
"""


@dataclasses.dataclass(frozen=True)
class Spec:
    out: str
    fault: str


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for what the processes write, with the module that they run on their path."""
    (tmp_path / "launched.py").write_text(WORKER)
    root = Path(processes.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, root, Path(__file__).parent))))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    for name in ("LOOK", "STOPPED", "GRACE"):
        monkeypatch.setattr(watching, name, {"LOOK": 0.1, "STOPPED": 1.0, "GRACE": 2.0}[name])
    return tmp_path


def pids(folder, wait=30.0):
    limit = time.monotonic() + wait
    while len(found := [p for p in folder.glob("*.pid") if p.read_text()]) < 2:
        assert time.monotonic() < limit
        time.sleep(0.05)
    return [int(path.read_text()) for path in found]


def gone(numbers, within):
    limit = time.monotonic() + within
    while left := [n for n in numbers if psutil.pid_exists(n) and psutil.Process(n).status() != psutil.STATUS_ZOMBIE]:
        if time.monotonic() > limit:
            return left
        time.sleep(0.05)
    return []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("SIGKILL", "was killed by SIGKILL, as the system does where memory runs out"),
        ("SIGSTOP", "has been stopped (SIGSTOP) for 1 s"),
        ("stuck", "did nothing for 6 s, nor did any other process"),
    ],
)
def test_a_lost_worker_is_named_with_its_rank_device_and_stack(folder, fault, said, monkeypatch, capfd):
    if fault == "stuck":
        monkeypatch.setattr(watching, "STUCK", 6.0)
    start = time.monotonic()
    with pytest.raises(WorkerLost) as caught:
        processes.launch("launched", Spec(str(folder), fault), 2, "run")
    assert time.monotonic() - start < 60 and caught.value.exit_code == 3
    line, stack = str(caught.value), capfd.readouterr().err
    assert line.startswith("process 1 of 2 of the run (toy:1, pid ") and said in line and "\n" not in line
    assert "process 0" not in line  # it waits for the other
    assert "the same command goes on" in line
    assert "process 1 of 2 of the run was last seen here" in stack and "launched.py" in stack
    assert ("process 0 of 2 of the run was last seen here" in stack and "gather_object" in stack) == (fault == "stuck")
    assert gone(pids(folder), 0) == [] and not list((folder / "tmp").iterdir())


@contextlib.contextmanager
def running(folder, fault):
    """A parent in a process of its own, with its two workers; yields it and the workers' numbers."""
    command = [sys.executable, "-c", PARENT, str(folder), fault]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        yield parent, pids(folder)


def test_workers_end_with_a_parent_that_is_killed(folder):
    with running(folder, "SIGSTOP") as (parent, workers):
        time.sleep(0.2)
        parent.kill()
        parent.wait()
        assert gone(workers, 10) == []
    assert not list((folder / "tmp").iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_of_a_scheduler_ends_all_within_ten_seconds(folder, number):
    with running(folder, "SIGSTOP") as (parent, workers):  # one of them can do nothing about it
        time.sleep(0.2)
        start = time.monotonic()
        os.killpg(parent.pid, number) if number == signal.SIGTERM else parent.send_signal(number)
        said, _ = parent.communicate(timeout=30)
        assert (parent.returncode, said) == (143, f"stopped by {number.name}\n")
        assert time.monotonic() - start < 10 and gone(workers, 0) == []
    assert not list((folder / "tmp").iterdir())


def test_the_time_limit_of_one_worker_ends_all(folder):
    with running(folder, "limit") as (parent, workers):
        said, _ = parent.communicate(timeout=30)
        assert (parent.returncode, said) == (143, "stopped by --time-limit\n") and gone(workers, 0) == []


LAUNCHER = """
import os, pathlib, subprocess, sys, time

place = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
env = {**os.environ, **place, **dict(word.split("=") for word in sys.argv[2:])}
subprocess.Popen([sys.executable, "-c", os.environ["WORKER"], sys.argv[1]], env=env, start_new_session=True)
while not pathlib.Path(sys.argv[1], "0.pid").exists():
    time.sleep(0.05)
"""
LAUNCHED = """
import os, pathlib, sys, time
from dlbench.system import lifeline, stopping

folder = pathlib.Path(sys.argv[1])
try:
    with stopping.by_signals():
        lifeline.end_with_launcher(0.05)
        (folder / "0.pid").write_text(str(os.getpid()))
        time.sleep(3)
    word = "went on"
except stopping.Stopped as stopped:
    word = str(stopped)
(folder / "word.part").write_text(word)
(folder / "word.part").rename(folder / "word")
"""


@pytest.mark.parametrize(("given", "word"), [(["TORCHELASTIC_RUN_ID=x"], "stopped by SIGTERM"), ([], "went on")])
def test_a_process_ends_cleanly_with_the_torchrun_that_started_it(folder, given, word, monkeypatch):
    monkeypatch.setenv("WORKER", LAUNCHED)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    subprocess.run([sys.executable, "-c", LAUNCHER, str(folder), *given], check=True)
    limit = time.monotonic() + 60
    while not (folder / "word").exists():
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert (folder / "word").read_text() == word
