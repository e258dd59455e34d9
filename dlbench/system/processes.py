"""Start the processes of a command and wait for them; accelerate reads their number from the environment.

`accelerate launch` itself starts one process on a machine without GPUs, however many are asked for, and reports a
failure with a traceback of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from dlbench import errors
from dlbench.errors import DlbenchError, WorkerLost, of_the_system
from dlbench.system import lifeline, process_group
from dlbench.system.cpu import cores
from dlbench.system.stopping import EXIT_CODE, SIGNALS, Stopped
from dlbench.system.watching import Watch, end, killed_by

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

WAIT = timedelta(hours=2)
"""Longest time that one process waits for another before it fails."""
SOON = 0.5
"""Seconds for a signal to reach all processes of a job."""
_PREFIX = "dlbench-launch-"
_JOIN = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
"""Tells torch in a worker that the store is there already: no worker listens at MASTER_PORT."""
_TOLD = (EXIT_CODE, *(-number for number in SIGNALS))
"""Exit codes of a worker that was told to stop: by itself, or by the system before it could."""
_INTERFACE = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
KEPT = "what the processes finished is kept: the same command goes on there"

SMALL = 64 * 2**20
"""Bytes of weights up to which a model's layers roughly fit the caches of one core."""
MOST, FEW = 8, 32
"""Most processes, and the number of documents below which one process is enough."""


def suitable(models: Sequence[Path], device: str, documents: int | None) -> int:
    """The number of processes that finishes soonest: one per core for small models on a CPU, else one.

    The matrix products of a small model are too short to split over threads, and its weights fit the caches, so that
    processes do not compete for memory bandwidth.

    Args:
        models: folders of the models; one that does not exist counts as large.
        device: torch's name of the device.
        documents: number per task; None for all.
    """
    if device != "cpu" or (documents is not None and documents < FEW):
        return 1
    for folder in models:
        weights = list(folder.glob("*.safetensors"))
        if not weights or sum(path.stat().st_size for path in weights) > SMALL:
            return 1
    return min(cores(), MOST)


class Turns:
    """Shares pieces of work among the processes of a run: each piece goes to the first process that takes it.

    Args:
        folder: of this run alone; a file there marks each piece that is taken.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, piece: int) -> bool:
        """Take a piece; False where another process has it."""
        try:
            (self.folder / str(piece)).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """Keep accelerate from warning about the number of threads, and from setting it for processes started later."""
    chosen = os.environ.get("OMP_NUM_THREADS")
    with warnings.catch_warnings(), process_group.joining():
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
        yield
    if chosen is None:
        os.environ.pop("OMP_NUM_THREADS", None)


def tell(spec: Path, error: DlbenchError) -> int:
    """Write an error where `launch` finds it, and return the exit code for this process.

    Where that cannot be written, as on a full disk, the line is printed.
    """
    try:
        spec.with_name(f"error-{process_group.rank()}").write_text(f"{type(error).__name__}\n{error}")
    except OSError:
        print(f"dlbench: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def ended_by(spec: Path, error: BaseException) -> int:
    """Report what ended a worker where `launch` finds it; return the exit code for this process.

    Raises:
        BaseException: the error itself, where it is a bug, so that its traceback is printed. It may come of the end of
            another process, so `launch` is given the time to end this one silently.
    """
    if isinstance(error, DlbenchError):
        return tell(spec, error)
    if (failure := of_the_system(error)) is not None:
        return tell(spec, failure)
    if isinstance(error, Stopped):
        with contextlib.suppress(OSError):  # the parent may be gone with the folder
            spec.with_name(f"stopped-{process_group.rank()}").write_text(str(error))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(EXIT_CODE)  # what libraries do at the end of a process may wait for the others
    with contextlib.suppress(Stopped):
        time.sleep(2 * SOON)
        raise error
    return EXIT_CODE


def launch(module: str, spec: DataclassInstance, processes: int, what: str) -> None:
    """Run `python -m MODULE SPEC.json WHAT`, tied to this process, in several processes of this machine.

    Args:
        module: what each process runs; it reports errors by `ended_by`.
        spec: written to the file as JSON, its fields by name.
        processes: how many.
        what: what the processes do, in one word, such as "run".

    Raises:
        DlbenchError: the one that a process reported; the others were ended.
        WorkerLost: a process was killed, stopped or stuck, or printed a traceback; the others were ended.
        Stopped: a process was told to stop.
    """
    _remove_stale()
    with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-") as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(dataclasses.asdict(spec), default=str))
        store = _store(processes)
        place = {"MASTER_ADDR": store.host, "MASTER_PORT": str(store.port), "WORLD_SIZE": str(processes), **_JOIN}
        place |= _over_loopback()
        workers: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(processes):
                here = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
                env = {**os.environ, **place, **here}
                command = [*lifeline.tied(module, path.parent, rank), str(path), what]
                workers.append(subprocess.Popen(command, env=env, stdin=subprocess.PIPE))
            lost = _wait(workers)
        finally:
            end(workers)
        if lost is not None:
            raise _fault(*lost, workers, path.parent, what)


def _store(processes: int) -> TCPStore:
    """The store in which workers find each other, as torch's elastic launcher holds one.

    The system picks a port of the loopback, on which this process listens from then on, so that no other program can
    take it before the workers come.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # not for the start of every command

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        host, port = listening.getsockname()
        return TCPStore(
            host, port, processes, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach()
        )


def _over_loopback() -> dict[str, str]:
    """Variables by which the workers' connections stay on the loopback, as far as the user has not chosen others.

    By themselves gloo and NCCL may take an address of the network, which a firewall can close and others can reach.
    """
    with contextlib.suppress(OSError, psutil.Error):
        for name, addresses in psutil.net_if_addrs().items() if os.name == "posix" else ():
            if any(one.address == "127.0.0.1" for one in addresses):
                return {variable: name for variable in _INTERFACE if variable not in os.environ}
    return {}


def _remove_stale() -> None:
    """Remove the folders of launches whose processes were all killed at once."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _wait(workers: Sequence[subprocess.Popen[bytes]]) -> tuple[list[int], str] | None:
    """Wait until all workers are done.

    Returns:
        The rank of the first that fails, or the ranks of those that may be lost, and why where it does not say so;
        None where all are done.
    """
    watch = Watch([worker.pid for worker in workers])
    while True:
        codes = [worker.poll() for worker in workers]
        if failed := [rank for rank, code in enumerate(codes) if code]:
            if any(codes[rank] in _TOLD for rank in failed):
                time.sleep(SOON)  # a scheduler tells all processes: the signal for this one may come last
            killed = [rank for rank in failed if (codes[rank] or 0) < 0]
            return (killed or failed)[:1], ""
        if None not in codes:
            return None
        if silent := watch.lost(codes):
            return silent
        time.sleep(0.1)


def _fault(
    ranks: Sequence[int], why: str, workers: Sequence[subprocess.Popen[bytes]], folder: Path, what: str
) -> DlbenchError | Stopped:
    """The error for a worker that failed, or for several of which some may be lost."""
    reported = [text for one in sorted(folder.glob("error-*")) if (text := one.read_text())]  # a full disk: empty
    code = workers[ranks[0]].returncode
    if not why and reported:
        kind_name, _, line = reported[0].partition("\n")
        kind = getattr(errors, kind_name, None)
        return kind(line) if isinstance(kind, type) and issubclass(kind, DlbenchError) else DlbenchError(line)
    if not why and code in _TOLD:
        said = folder / f"stopped-{ranks[0]}"  # not there where it was ended in a library, or while it imported
        return Stopped(said.read_text() if said.is_file() else "a process was told to stop")
    named, suspects = dict[int, str](), list[int]()
    for rank in ranks:
        device, stack = lifeline.last_word(folder, rank)
        name = f"process {rank} of {len(workers)} of the {what}"
        named[rank] = f"{name} ({', '.join(filter(None, (device, f'pid {workers[rank].pid}')))})"
        if not why and code > 0:
            return WorkerLost(f"{named[rank]} failed (exit code {code}); see what it printed above")
        if stack:
            print(f"{name} was last seen here:\n{stack}", end="", file=sys.stderr, flush=True)
        if not lifeline.waits_for_others(stack):
            suspects.append(rank)
    lost = " and ".join(named[rank] for rank in suspects or ranks)
    return WorkerLost(f"{lost} {why or killed_by(-code)}; {KEPT}")
