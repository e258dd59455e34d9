"""Two launchers, as on two nodes, share one run folder; here both are on the loopback."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import small_model

from dlbench.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found by their environment"),
]
LIMIT = 900.0
"""Seconds after which a test gives up, on a machine however busy."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model.save(tmp_path_factory.mktemp("models") / "tiny")


def command(tiny: Path, out: Path) -> list[str]:
    """A run with a method that is fitted, so that the nodes share a fit; a batch of one has no padding."""
    methods = [word for name in ("full", "static_skip", "calm") for word in ("--method", name)]
    return ["run", "--model", str(tiny), "--task", "nano_summary", "--limit", "4", "--batch-size", "1", "--budget",
            "0.5", "--fit-tokens", "500", "--refit", "--out", str(out), *methods]  # fmt: skip


@pytest.fixture(scope="module")
def alone(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    out = tmp_path_factory.mktemp("alone") / "out"
    assert main([*command(tiny, out), "--processes", "1", "--no-timing"]) == 0
    return out


class Nodes:
    """Two launchers of one process each.

    Args:
        arguments: of dlbench.
        folder: for what they print, and their scratch folder, by which their processes are known.
    """

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.folder, self.scratch = folder, folder / "scratch"
        self.scratch.mkdir()
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{one.getsockname()[1]}"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(self.scratch)}
        torchrun = ["torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"]
        line = [sys.executable, "-m", *torchrun, "--rdzv-endpoint", place, "--rdzv-id", "run", "-m", "dlbench"]
        self.launchers = []
        for number in range(2):
            with (folder / f"node{number}.txt").open("w") as said:
                self.launchers.append(subprocess.Popen([*line, *arguments], env=env, stdout=said, stderr=said))

    def processes(self) -> list[psutil.Process]:
        """Launchers, workers, and what these started, as long as they live."""
        found = []
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.environ().get("TMPDIR") == str(self.scratch) and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
        return found

    def wait(self) -> list[int]:
        """Return the exit codes of the launchers."""
        limit = time.monotonic() + LIMIT
        return [launcher.wait(max(1.0, limit - time.monotonic())) for launcher in self.launchers]

    def said(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("node*.txt")))


@pytest.fixture
def start(tiny: Path, tmp_path: Path) -> Iterator[Callable[[Path], Nodes]]:
    """Two nodes that carry out the run in `out`, given their own folder; what is left of them is ended at last."""
    started: list[Nodes] = []

    def begin(folder: Path) -> Nodes:
        folder.mkdir()
        started.append(Nodes(command(tiny, tmp_path / "out"), folder))
        return started[-1]

    yield begin
    for nodes in started:
        for one in nodes.processes():
            with contextlib.suppress(psutil.Error):
                one.kill()
        nodes.wait()


def samples(out: Path) -> dict[str, dict[str, Any]]:
    """The samples of a run without their near ties: margins are rounded as the number of threads has it."""
    found = {}
    for path in sorted((out / "samples").iterdir()):
        for number, line in enumerate(path.read_text().splitlines()):
            sample = json.loads(line)
            assert sample.pop("check") is not None and isinstance(sample.pop("tight"), list)
            found[f"{path.name}, line {number}"] = sample
    return found


def assert_equal(out: Path, alone: Path) -> None:
    """Both runs have the same records and samples, and nothing else is left of the one with several processes."""
    assert (out / "records.jsonl").read_bytes() == (alone / "records.jsonl").read_bytes()
    assert samples(out) == samples(alone)
    assert not [*out.rglob("*.scratch"), *out.rglob("*.part"), *out.rglob("*.damaged")]


def test_two_nodes_give_the_records_of_one_process_though_the_launcher_of_one_is_killed_at_first(
    start: Callable[[Path], Nodes], alone: Path, tmp_path: Path
) -> None:
    out, limit = tmp_path / "out", time.monotonic() + LIMIT
    killed = start(tmp_path / "killed")
    while not list(out.glob("samples/*.part")):
        assert time.monotonic() < limit and None in [one.poll() for one in killed.launchers], killed.said()
        time.sleep(0.01)
    killed.launchers[1].kill()
    assert all(killed.wait()), killed.said()
    assert "a fault of dlbench" not in killed.said(), killed.said()
    limit = time.monotonic() + 60
    while left := killed.processes():
        assert time.monotonic() < limit, left
        time.sleep(0.1)

    nodes = start(tmp_path / "again")
    assert nodes.wait() == [0, 0], nodes.said()
    assert_equal(out, alone)
    assert (out / "timing.jsonl").is_file() and (out / "site" / "index.html").is_file()
    ranks = {line.partition('"rank": ')[2][:1] for line in (out / "log.jsonl").read_text().splitlines()}
    assert {"0", "1"} <= ranks
    assert nodes.processes() == [] and list(nodes.scratch.glob("dlbench-*")) == []
