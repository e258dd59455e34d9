"""A run in Trackio: on this machine, unless its own environment variables name a Space."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pandas
import trackio
from trackio import Table

from dlbench.tracking.rows import figures, title
from dlbench.tracking.tracker import PROJECT, Row, TrackedRun, Tracker


class Trackio(Tracker):
    """The config, the records as a table, and their figures as numbers."""

    def begin(self, run: TrackedRun) -> None:
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        # Sampling the machine would disturb what is timed.
        sampling = {"auto_log_cpu": False, "auto_log_gpu": False}
        trackio.init(project=project, name=run.name, config=dict(run.config), **sampling)

    def advance(self, work: str, done: int, of: int) -> None:
        trackio.log({f"progress/{work}": done / max(of, 1)})

    def rows(self, rows: Sequence[Row]) -> None:
        if rows:
            trackio.log({"rows": Table(dataframe=pandas.DataFrame(list(rows), dtype=object))})
        for row in rows:
            trackio.log({f"{title(row)}/{name}": value for name, value in figures(row).items()})

    def end(self, ok: bool) -> None:
        trackio.finish()
