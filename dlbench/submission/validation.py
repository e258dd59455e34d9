"""Validate a submission: every fault with its code, all at once. Nothing of it is executed, and no torch is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dlbench.data.task_options import Sources
from dlbench.errors import DlbenchError
from dlbench.submission.checks.figures import check_figures
from dlbench.submission.checks.official import check_protocol
from dlbench.submission.checks.rows import check_rows
from dlbench.submission.contents import Submission
from dlbench.submission.faults import FaultList
from dlbench.submission.manifest import Manifest
from dlbench.submission.untrusted import check_files, read_manifest

Rules = Literal["official", "consistent"]
"""official: the protocol of the public board; consistent: any run, whose figures must follow from its samples."""


@dataclass(frozen=True)
class Validation:
    """The result of a validation."""

    faults: FaultList
    manifest: Manifest | None
    submission: Submission | None
    """None where too little could be read."""

    @property
    def passed(self) -> bool:
        """Whether there is no fault."""
        return not self.faults.codes


def validate(folder: Path, *, rules: Rules = "official", sources: Sources | None = None) -> Validation:
    """Validate a submission folder, whatever it holds.

    Args:
        folder: what `dlbench run --official` wrote, from anywhere.
        rules: what is checked.
        sources: where the tasks' data is found; the tasks themselves are this installation's.

    Raises:
        DlbenchError: there is no such folder.
    """
    if not folder.is_dir():
        raise DlbenchError(f"{folder} is no folder: give the one that `dlbench run --official` wrote")
    faults = FaultList()
    manifest = read_manifest(folder, faults)
    if manifest is None:
        return Validation(faults, None, None)
    intact = check_files(folder, manifest, faults)
    submission = Submission(folder, manifest, intact, faults, sources or Sources())
    checks: list[Callable[[Submission], None]] = [check_rows, check_figures]
    for check in checks if rules == "consistent" else [*checks, check_protocol]:
        _guarded(check, submission)
    return Validation(faults, manifest, submission)


def _guarded(check: Callable[[Submission], None], submission: Submission) -> None:
    """Carry out a check; what it did not foresee is a fault of the submission, which must never crash the validator.

    Raises:
        DlbenchError: this installation lacks something, such as the data of a task.
    """
    try:
        check(submission)
    except DlbenchError:
        raise
    except Exception as error:
        submission.faults.add("check-failed", check.__name__, f"{type(error).__name__}: {error}")
