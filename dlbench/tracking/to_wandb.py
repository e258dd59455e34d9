"""A run in Weights & Biases; offline, in the run's folder, until `wandb sync` sends it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import wandb
from wandb import Table

from dlbench.tracking.rows import figures, title
from dlbench.tracking.tracker import PROJECT, Row, TrackedRun, Tracker


class Wandb(Tracker):
    """The config, the records as a table, and their figures in the summary."""

    def begin(self, run: TrackedRun) -> None:
        # Without a mode of ours, WANDB_MODE and the login decide.
        mode = {"mode": "offline"} if run.offline else {}
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        # Sampling the machine would disturb what is timed, and what is printed is the run's own.
        quiet = wandb.Settings(console="off", x_disable_stats=True)
        self._run = wandb.init(
            project=project, name=run.name, dir=str(run.folder), config=dict(run.config), settings=quiet, **mode
        )

    def advance(self, work: str, done: int, of: int) -> None:
        self._run.log({f"progress/{work}": done / max(of, 1)})

    def rows(self, rows: Sequence[Row]) -> None:
        if rows:
            names = list(rows[0])
            data = [[row[name] for name in names] for row in rows]
            self._run.log({"rows": Table(columns=names, data=data)})
        for row in rows:
            for name, value in figures(row).items():
                self._run.summary[f"{title(row)}/{name}"] = value

    def end(self, ok: bool) -> None:
        self._run.finish(exit_code=0 if ok else 1)
