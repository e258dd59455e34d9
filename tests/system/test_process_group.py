"""Variables that other launches left in the environment neither hang a run nor crash it; a launcher's are believed."""

import json
import os
import subprocess
import sys
import time

import pytest
from torch.distributed import DistNetworkError

from dlbench.errors import DlbenchError
from dlbench.system import process_group

MASTER = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
COMPLETE = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", **MASTER}
LEFT = {
    "job script": {"WORLD_SIZE": "2", "RANK": "0", **MASTER},
    "other rank": {"WORLD_SIZE": "4", "RANK": "3", **MASTER},
    "master": MASTER,
    "world": {"WORLD_SIZE": "2"},
    "local rank": {"LOCAL_RANK": "0"},
    "no port": {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"},
    "garbage": {"RANK": "first", "WORLD_SIZE": ""},
    "mpich": {"PMI_SIZE": "2"},
    "open mpi": {"OMPI_COMM_WORLD_SIZE": "4"},
    "mvapich": {"MV2_COMM_WORLD_SIZE": "4", "MV2_COMM_WORLD_LOCAL_SIZE": "2"},
}


def settled(given):
    said, environment = [], {"HOME": "/root", **given}
    process_group.settle(said.append, environment)
    return said, environment


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_what_no_launcher_set_is_taken_out_and_told(left):
    said, environment = settled(left)
    assert environment == {"HOME": "/root"}
    (line,) = said
    assert all(name in line for name in left if not name.endswith("LOCAL_SIZE")) and "--processes" in line
    assert settled(environment) == ([], environment)


def test_a_launcher_is_believed():
    assert settled(COMPLETE) == ([], {"HOME": "/root", **COMPLETE})
    inherited = {**COMPLETE, "PMI_SIZE": "2", "PMI_RANK": "1", "OMPI_COMM_WORLD_SIZE": "9"}
    assert settled(inherited) == ([], {"HOME": "/root", **COMPLETE})


def test_a_single_process_of_mpi_is_a_run_like_any_other():
    assert settled({"PMI_SIZE": "1", "PMI_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}) == ([], {"HOME": "/root"})


GONE = [
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:4242"),
    DistNetworkError("The client socket has failed to connect"),
]


@pytest.mark.parametrize("error", GONE, ids=["gloo", "store"])
def test_a_peer_that_is_gone_is_no_fault_of_dlbench(error, monkeypatch):
    assert process_group.lost_peer(error) is None, "this process is alone"
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    lost = process_group.lost_peer(error)
    assert lost.exit_code == 3 and "rank 1 of 2" in str(lost) and "\n" not in str(lost)
    assert process_group.lost_peer(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None


@pytest.mark.parametrize("names", [("PMI_SIZE", "PMI_RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")])
def test_several_processes_of_mpi_are_refused(names):
    with pytest.raises(DlbenchError, match="MPI has started several processes") as caught:
        settled(dict(zip(names, ("2", "1"), strict=True)))
    assert all(name in str(caught.value) for name in names) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"RANK": "x"}, "RANK=x"),
        ({"RANK": "2"}, "no place in a group of WORLD_SIZE=2"),
        ({"MASTER_PORT": ""}, "MASTER_PORT="),
        ({"MASTER_PORT": "99999999"}, "MASTER_PORT=99999999 in the environment are no address"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT=0 in the environment are no address"),
        ({"MASTER_ADDR": " "}, "MASTER_ADDR= .* are no address"),
    ],
)
def test_what_a_launcher_cannot_have_said_is_refused(wrong, said):
    with pytest.raises(DlbenchError, match=said):
        settled(COMPLETE | wrong)


def test_those_who_wait_in_vain_say_so_and_end(monkeypatch, capfd):
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    codes = []
    with process_group.joining(0.05, 0.1, codes.append):
        time.sleep(0.5)
    said = capfd.readouterr().err
    assert codes == [2] and "WORLD_SIZE=2" in said and "unset" in said
    with process_group.joining(30, 60, codes.append):
        pass
    monkeypatch.delenv("WORLD_SIZE")
    with process_group.joining(0, 0, codes.append):
        time.sleep(0.1)
    assert codes == [2] and capfd.readouterr().err == ""


RUN = ["run", "--method", "full", "--task", "nano_math", "--limit", "2", "--no-timing"]
LAUNCHES = ("job script", "other rank", "mpich", "open mpi")
# Imports what a run imports, once, and then forks: what accelerate and torch read, they read when the run begins.
FORKS = """
import json, os, sys, traceback
import torch, transformers
import dlbench.data.loader, dlbench.leaderboard.site, dlbench.running.runner
from dlbench.cli import main

for name, left, line, said in json.load(sys.stdin):
    if not (child := os.fork()):
        code = 1
        try:
            written = os.open(said, os.O_WRONLY | os.O_CREAT)
            os.dup2(written, 1)
            os.dup2(written, 2)
            os.environ.update(left)
            code = main(line)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sep="\\t", flush=True)
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What runs ended with, and what they said, in processes that found something left in the environment."""
    folder = tmp_path_factory.mktemp("launched")
    given = [(left, LEFT[left], [*RUN, "--out", str(folder / left)], str(folder / f"{left}.txt")) for left in LAUNCHES]
    env = {k: v for k, v in os.environ.items() if k not in COMPLETE}
    command = [sys.executable, "-c", FORKS]
    ran = subprocess.run(command, env=env, input=json.dumps(given), capture_output=True, text=True, timeout=480)
    assert ran.returncode == 0, ran.stderr
    codes = dict(line.split("\t") for line in ran.stdout.splitlines())
    return {left: (int(codes[left]), (folder / f"{left}.txt").read_text(), folder / left) for left in LAUNCHES}


@pytest.mark.parametrize("left", LAUNCHES)
def test_a_run_goes_on_whatever_was_left(left, launched):
    code, said, folder = launched[left]
    assert code == 0, said
    assert "ignored in the environment" in said and (folder / "records.jsonl").is_file()
