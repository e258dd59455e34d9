"""Processes are really as many as asked for, know of each other, and none outlives a failure."""

import dataclasses
import os
import time
from pathlib import Path

import psutil
import pytest

from dlbench.errors import DlbenchError, RowsLeftOutError, WorkerLost
from dlbench.system import processes
from dlbench.system.processes import launch
from dlbench.system.stopping import Stopped

JOIN = """
import json, os, pathlib, socket, sys
import psutil
from accelerate import PartialState
from dlbench.system.processes import own_threads

spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
with socket.socket() as other:
    try:
        other.bind(("127.0.0.1", int(os.environ["MASTER_PORT"])))
    except OSError:
        pass
    else:
        raise SystemExit("another program could take the port")
with own_threads():
    state = PartialState(cpu=True)
assert "OMP_NUM_THREADS" not in os.environ
addresses = {connection.laddr.ip for connection in psutil.Process().net_connections("inet4")}
pathlib.Path(spec["out"], f"{state.process_index}.addresses").write_text(" ".join(addresses))
state.wait_for_everyone()
pathlib.Path(spec["out"], f"{state.process_index} of {state.num_processes}").touch()
state.destroy_process_group()
"""
FAIL = """
import os, sys, time

if os.environ["RANK"] == "1":
    sys.exit(7)
time.sleep(60)
"""


@dataclasses.dataclass(frozen=True)
class Spec:
    out: os.PathLike


def module(folder, monkeypatch, source):
    (folder / "launched.py").write_text(source)
    root = Path(processes.__file__).parents[2]  # not another checkout that is installed
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, root))))


def test_processes_find_each_other(tmp_path, monkeypatch, capfd):
    module(tmp_path, monkeypatch, JOIN)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launch("launched", Spec(tmp_path), 2, "run")
    assert "OMP_NUM_THREADS" not in capfd.readouterr().err
    assert {p.name for p in tmp_path.glob("* of *")} == {"0 of 2", "1 of 2"}
    assert {p.read_text() for p in tmp_path.glob("*.addresses")} == {"127.0.0.1"}  # none reachable from outside


ENVIRONMENT = """
import os, pathlib, json, sys

names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
path = pathlib.Path(json.loads(pathlib.Path(sys.argv[1]).read_text())["out"], os.environ["RANK"])
path.write_text(" ".join(os.environ.get(name, "unset") for name in names))
"""


@pytest.mark.parametrize("given", [None, "eth9"])
def test_processes_of_one_machine_talk_over_its_loopback_unless_told_otherwise(tmp_path, monkeypatch, given):
    module(tmp_path, monkeypatch, ENVIRONMENT)
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    if given is not None:
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", given)
    addresses = psutil.net_if_addrs().items()
    loopback = next(name for name, several in addresses if any(one.address == "127.0.0.1" for one in several))
    launch("launched", Spec(tmp_path), 2, "run")
    assert {(tmp_path / rank).read_text() for rank in "01"} == {f"{given or loopback} {loopback}"}


def test_a_failure_ends_the_others(tmp_path, monkeypatch):
    module(tmp_path, monkeypatch, FAIL)
    start = time.monotonic()
    with pytest.raises(DlbenchError, match=r"process 1 of 2 of the training \(.*pid \d+\) failed \(exit code 7\)"):
        launch("launched", Spec(tmp_path), 2, "training")
    assert time.monotonic() - start < 30


EARLY = """
import os, signal, sys, time

if os.environ["RANK"] == "1":
    os.kill(os.getpid(), getattr(signal, "NAME"))  # while it imports: no handler is there yet
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_worker_that_is_told_to_stop_while_it_starts_is_not_lost(tmp_path, monkeypatch, name):
    module(tmp_path, monkeypatch, EARLY.replace("NAME", name))
    with pytest.raises(Stopped, match="a process was told to stop"):
        launch("launched", Spec(tmp_path), 2, "run")


TELL = """
import pathlib, sys

from dlbench import errors
from dlbench.system.processes import tell

sys.exit(tell(pathlib.Path(sys.argv[1]), errors.KIND("no such task")))
"""


FULL = """
import errno, pathlib, sys

from dlbench.errors import DlbenchError
from dlbench.system.processes import tell

def cut_off(path, text):
    path.touch()
    raise OSError(errno.ENOSPC, "No space left on device")

pathlib.Path.write_text = cut_off
sys.exit(tell(pathlib.Path(sys.argv[1]), DlbenchError("no such task")))
"""


def test_an_error_is_said_where_the_disk_is_full_too(tmp_path, monkeypatch, capfd):
    module(tmp_path, monkeypatch, FULL)
    with pytest.raises(WorkerLost, match=r"failed \(exit code 2\); see what it printed above$"):
        launch("launched", Spec(tmp_path), 2, "run")
    assert "dlbench: no such task\n" in capfd.readouterr().err


@pytest.mark.parametrize("kind", [DlbenchError, RowsLeftOutError, WorkerLost])
def test_an_error_is_said_once_and_keeps_its_exit_code(tmp_path, monkeypatch, capfd, kind):
    module(tmp_path, monkeypatch, TELL.replace("KIND", kind.__name__))
    with pytest.raises(kind, match=r"^no such task$") as error:
        launch("launched", Spec(tmp_path), 2, "run")
    assert capfd.readouterr().err == ""
    assert type(error.value) is kind and error.value.exit_code == kind.exit_code
