"""Pack a run for submission."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dlbench.run.config import RunSpec
from dlbench.run.job import Job
from dlbench.submission.packing import PackedJob, pack


def pack_run(spec: RunSpec, jobs: Sequence[Job], out: Path) -> Path:
    """Write the submission of a finished run, official or not, and return its folder.

    Args:
        spec: the run.
        jobs: of the run.
        out: the submission's folder; an earlier submission there is replaced.

    Raises:
        DlbenchError: the folder holds something else, or a method's source cannot be packed.
    """
    asked_for = {"fewshot": spec.sources.fewshot, "max_new_tokens": spec.sources.max_new_tokens}
    packed = [
        PackedJob(job.conditions, job.engine.costs, job.settings, job.artifacts, job.thinking, asked_for)
        for job in jobs
    ]
    options = dataclasses.asdict(spec)
    del options["out"]  # a folder of the author's machine
    return pack(spec.out, out, packed, official=spec.official, author=spec.author, options=options)
