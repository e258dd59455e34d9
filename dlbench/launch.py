"""Start the processes of a command and wait for them; accelerate then finds in their environment how many there are.

`accelerate launch` itself starts one process on a machine without GPUs, however many are asked for, and ends a failure
with a traceback of its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.errors import DlbenchError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WAIT = timedelta(hours=2)
"""Longest wait of one process for another, before it gives up with an error."""


def launch(module: str, spec: DataclassInstance, processes: int, what: str) -> None:
    """Run `python -m MODULE SPEC.json` in several processes of this machine.

    Args:
        module: what each process runs.
        spec: written to the file as JSON, its fields by name.
        processes: how many.
        what: what the processes do, for people: "run".

    Raises:
        DlbenchError: one of them failed; it has said why, and the others were ended.
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
                started.append(subprocess.Popen([sys.executable, "-m", module, str(path)], env=env))
            while not (failed := [p.returncode for p in started if p.poll()]) and None in [p.poll() for p in started]:
                time.sleep(0.1)
        finally:
            for process in started:  # whoever is left waits for one that is gone
                process.terminate()
            for process in started:
                process.wait()
    if failed:
        raise DlbenchError(f"a process of the {what} failed (exit code {failed[0]}); its message stands above")
