"""A run in TensorBoard: event files in the run's folder `tensorboard`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from torch.utils.tensorboard import SummaryWriter

from dlbench.tracking.rows import figures, seed_of
from dlbench.tracking.tracker import Row, TrackedRun, Tracker


class TensorBoard(Tracker):
    """Figures over the budget in percent, so that a method is a line; the table and the config as texts."""

    def begin(self, run: TrackedRun) -> None:
        self._writer = SummaryWriter(str(run.folder / "tensorboard"))
        config = json.dumps(run.config, indent=2, ensure_ascii=False)
        self._writer.add_text("config", "\n".join(f"    {line}" for line in config.splitlines()))

    def advance(self, work: str, done: int, of: int) -> None:
        self._writer.add_scalar(f"progress/{work}", done / max(of, 1), done)

    def rows(self, rows: Sequence[Row]) -> None:
        for row in rows:
            budget = row["budget"]
            step = round(100 * budget) if isinstance(budget, float) else 100
            for name, value in figures(row).items():
                tag = f"{row['task']}/{name}/{row['label']}{seed_of(row)}"
                self._writer.add_scalar(tag, value, step)
        if rows:
            self._writer.add_text("rows", _table(rows))

    def end(self, ok: bool) -> None:
        self._writer.add_text("ended", "finished" if ok else "failed or stopped")
        self._writer.close()


def _table(rows: Sequence[Row]) -> str:
    def cells(values: Sequence[object]) -> str:
        told = ("" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
        return f"| {' | '.join(one.replace('|', chr(92) + '|') for one in told)} |"

    names = list(rows[0])
    return "\n".join(
        [cells(names), cells(["---"] * len(names)), *(cells([row[name] for name in names]) for row in rows)]
    )
