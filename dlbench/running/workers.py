"""Carry out a run, or its fits, in several processes of this machine."""

from __future__ import annotations

import dataclasses

from dlbench.errors import WorkerLost
from dlbench.records.run_folder import RUN_FILE
from dlbench.running.config import RunSpec
from dlbench.system import stopping
from dlbench.system.processes import launch
from dlbench.terminal.event_log import EventLog


def run_in_workers(spec: RunSpec, processes: int, what: str) -> None:
    """Start workers and wait for them; where one is lost, or the run is stopped, the log says so.

    Args:
        spec: the run; its workers count a time limit from their own start.
        processes: how many.
        what: "run" or "fit".

    Raises:
        DlbenchError: something cannot be done as asked, or a worker was lost.
        Stopped: the run was told to stop, or its time is over.
    """
    told = dataclasses.replace(spec, time_limit=stopping.left(spec.time_limit))
    try:
        launch("dlbench.running.runner", told, processes, what)
    except (WorkerLost, stopping.Stopped) as error:
        if (spec.out / RUN_FILE).is_file():
            log = EventLog()
            log.open(spec.out)
            log.event("ended", by=type(error).__name__, text=str(error))
        raise
