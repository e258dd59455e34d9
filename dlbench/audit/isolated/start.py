"""Audit methods from any process: the driver runs in one of its own, with a clean home folder and environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from dlbench.audit.isolated.case import Case
from dlbench.audit.isolated.findings import Finding
from dlbench.errors import DlbenchError

PATIENCE = 20.0
"""Seconds of processor time after which a piece of a method's work is given up, on a tiny model."""
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "HF_HOME", "HF_HUB_OFFLINE")
"""Environment variables that the driver inherits."""


@dataclass(frozen=True)
class Audited:
    """The audit of one method with its parameters."""

    given: str
    params: Mapping[str, Any]
    findings: tuple[Finding, ...]
    seconds: float
    processor: float
    """Seconds of processor time."""
    oracle: bool = False
    """Whether it is an oracle, which is asked nothing while texts are decoded."""


def audit(
    cases: Sequence[Case],
    *,
    model: str | None = None,
    task: str | None = None,
    data_dir: str | None = None,
    seed: int | None = None,
    patience: float | None = None,
    variants: bool = False,
) -> Iterator[Audited]:
    """Audit methods, one after the other.

    Args:
        cases: the methods.
        model: what they are audited on; see `AuditBench.of`.
        task: likewise.
        data_dir: likewise.
        seed: of the fresh documents; None for a new one.
        patience: seconds of processor time after which a piece of a method's work is given up.
        variants: whether each is audited with all parameter sets that a run takes by default, too.

    Raises:
        DlbenchError: the model or the task cannot be loaded, or the driver fails.
    """
    if not cases:
        return
    on_own = model is not None or task is not None
    job = {
        "cases": [{**asdict(case), "given": _absolute(case)} for case in cases],
        "model": model if model is None or not Path(model).exists() else str(Path(model).resolve()),
        "task": task,
        "data_dir": None if data_dir is None else str(Path(data_dir).resolve()),
        "seed": int.from_bytes(os.urandom(4)) if seed is None else seed,
        "patience": patience or (60 * PATIENCE if on_own else PATIENCE),
        "variants": variants,
    }
    from dlbench.engine.kernels.native import VARIABLE, native

    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as errors:
        native()  # built here, and named in the environment: with a clean home folder, every audit would build it anew
        environment = {name: value for name in (*_KEPT, VARIABLE) if (value := os.environ.get(name)) is not None}
        environment |= {"HOME": home, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment.setdefault("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        driver = subprocess.Popen(
            [sys.executable, "-m", "dlbench.audit.isolated.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=home,
            text=True,
        )
        with driver:
            assert driver.stdin is not None and driver.stdout is not None
            driver.stdin.write(json.dumps(job))
            driver.stdin.close()
            try:
                while (result := _read(driver.stdout.readline(), errors)) is not None:
                    yield result
            finally:
                driver.kill()


def _absolute(case: Case) -> str:
    return str(Path(case.given).resolve()) if case.given.endswith(".py") else case.given


def _read(line: str, errors: IO[bytes]) -> Audited | None:
    """A line of the driver's; None for the last."""
    if not line:
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().splitlines()
        raise DlbenchError(f"the audit failed: {said[-1] if said else 'its process was gone'}")
    result = json.loads(line)
    if "error" in result:
        raise DlbenchError(result["error"])
    if "end" in result:
        return None
    found = tuple(Finding(*one) for one in result["findings"])
    return Audited(result["given"], result["params"], found, result["seconds"], result["processor"], result["oracle"])
