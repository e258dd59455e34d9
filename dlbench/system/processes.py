"""Start the processes of a command and wait for them; accelerate reads their number from the environment.

`accelerate launch` itself starts one process on a machine without GPUs, however many are asked for, and reports a
failure with a traceback of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
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

from dlbench.errors import DlbenchError, RowsLeftOutError
from dlbench.system import process_group

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WAIT = timedelta(hours=2)
"""Longest time that one process waits for another before it fails."""

SMALL = 64 * 2**20
"""Bytes of weights up to which a model's layers roughly fit the caches of one core."""
MOST, FEW = 8, 32
"""Most processes, and the number of documents below which one process is enough."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    """Write an error where `launch` finds it, and return the exit code for this process."""
    spec.with_name(f"error-{process_group.rank()}").write_text(str(error))
    return error.exit_code


def launch(module: str, spec: DataclassInstance, processes: int, what: str) -> None:
    """Run `python -m MODULE SPEC.json WHAT` in several processes of this machine.

    Args:
        module: what each process runs; it reports a DlbenchError by `tell`.
        spec: written to the file as JSON, its fields by name.
        processes: how many.
        what: what the processes do, in one word, such as "run".

    Raises:
        DlbenchError: one of them failed, and the others were ended. The message is the one that a process reported,
            or names the exit code of a process that printed a traceback instead.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(dataclasses.asdict(spec), default=str))
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(processes)}
        free.close()
        started = []
        try:
            for rank in range(processes):
                env = {**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
                started.append(subprocess.Popen([sys.executable, "-m", module, str(path), what], env=env))
            while not (failed := [p.returncode for p in started if p.poll()]) and None in [p.poll() for p in started]:
                time.sleep(0.1)
        finally:
            for process in started:  # the others would wait for the one that failed
                process.terminate()
            for process in started:
                process.wait()
        if failed:
            reported = [one.read_text() for one in sorted(path.parent.glob("error-*"))]
            code = f"a process of the {what} failed (exit code {failed[0]}); see what it printed above"
            kind = RowsLeftOutError if failed[0] == RowsLeftOutError.exit_code else DlbenchError
            raise kind(reported[0] if reported else code)
