"""Start the processes of a command and wait for them; accelerate then finds in their environment how many there are.

`accelerate launch` itself starts one process on a machine without GPUs, however many are asked for, and ends a failure
with a traceback of its own.
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

from dlbench.errors import DlbenchError
from dlbench.system import process_group

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WAIT = timedelta(hours=2)
"""Longest wait of one process for another, before it gives up with an error."""


SMALL = 64 * 2**20
"""Bytes of weights up to which a model's layers stay in the caches of one core, more or less."""
MOST, FEW = 8, 32
"""Processes at most, and documents below which one is enough."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def suitable(models: Sequence[Path], device: str, documents: int | None) -> int:
    """Processes that finish soonest: one per core for small models on a CPU, else one.

    The products of a small model are too short for several threads to share, and its weights fit the caches, so that
    processes do not wait for each other's memory.

    Args:
        models: their folders; one that is not there counts as large.
        device: of torch.
        documents: of each task, None for all.
    """
    if device != "cpu" or (documents is not None and documents < FEW):
        return 1
    for folder in models:
        weights = list(folder.glob("*.safetensors"))
        if not weights or sum(path.stat().st_size for path in weights) > SMALL:
            return 1
    return min(cores(), MOST)


class Turns:
    """Pieces of work that the processes of a run take one after the other, each piece once.

    Args:
        folder: of this run alone; whoever takes a piece leaves a file there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def take(self, piece: int) -> bool:
        """Whether the piece is this process's."""
        try:
            (self.folder / str(piece)).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """Let accelerate join the processes without a word on threads, or a number of them for all that is started here."""
    chosen = os.environ.get("OMP_NUM_THREADS")
    with warnings.catch_warnings(), process_group.joining():
        warnings.filterwarnings("ignore", message="OMP_NUM_THREADS")
        yield
    if chosen is None:
        os.environ.pop("OMP_NUM_THREADS", None)


def tell(spec: Path, error: DlbenchError) -> int:
    """Leave an error where `launch` finds it, and return the exit code of the process that met it."""
    spec.with_name(f"error-{process_group.rank()}").write_text(str(error))
    return error.exit_code


def launch(module: str, spec: DataclassInstance, processes: int, what: str) -> None:
    """Run `python -m MODULE SPEC.json WHAT` in several processes of this machine.

    Args:
        module: what each process runs; errors of people go to `tell`.
        spec: written to the file as JSON, its fields by name.
        processes: how many.
        what: what the processes do, in a word: "run".

    Raises:
        DlbenchError: one of them failed, and the others were ended; with what the first of them told, or the exit code
            of one that told nothing and left its traceback.
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
            for process in started:  # whoever is left waits for one that is gone
                process.terminate()
            for process in started:
                process.wait()
        if failed:
            told = [one.read_text() for one in sorted(path.parent.glob("error-*"))]
            code = f"a process of the {what} failed (exit code {failed[0]}); what it printed stands above"
            raise DlbenchError(told[0] if told else code)
