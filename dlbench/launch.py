"""Start the processes of a command with accelerate and wait for them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.errors import DlbenchError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def launch(module: str, spec: DataclassInstance, processes: int, *, cpu: bool, what: str) -> None:
    """Run `python -m MODULE SPEC.json` in several processes of one machine.

    Args:
        module: what each process runs.
        spec: written to the file as JSON, its fields by name.
        processes: how many.
        cpu: whether they compute on the CPU; otherwise each has a GPU.
        what: what the processes do, for people: "run".

    Raises:
        DlbenchError: one of them failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(dataclasses.asdict(spec), default=str))
        command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(processes)]
        command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--cpu"] if cpu else ["--multi_gpu"]
        done = subprocess.run([*command, "-m", module, str(path)], check=False)
    if done.returncode:
        raise DlbenchError(f"a process of the {what} failed (exit code {done.returncode}); its message stands above")
