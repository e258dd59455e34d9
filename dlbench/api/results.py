"""`dlbench.Results`: what runs left in their folders, as records, tables, charts, and methods to decode with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from dlbench.api.chart import Chart
from dlbench.api.result_row import ResultRow
from dlbench.errors import DlbenchError
from dlbench.leaderboard.board import Board, read_board
from dlbench.leaderboard.data.tracks import label_meant
from dlbench.leaderboard.data.views import BoardView
from dlbench.records.schema import Record

if TYPE_CHECKING:
    import pandas


def load(*run_dirs: str | Path) -> Results:
    """Read one or several folders that `dlbench run` wrote.

    Raises:
        DlbenchError: a folder holds no records, or bad ones.
    """
    if not run_dirs:
        raise DlbenchError("no run folder: give at least one")
    results = Results(tuple(Path(folder).expanduser() for folder in run_dirs))
    for folder in results.run_dirs:
        if not (folder / "records.jsonl").is_file():
            raise DlbenchError(f"{folder} holds no records.jsonl: give a folder that `dlbench run` wrote")
    return results


@dataclass(frozen=True)
class Results:
    """The rows of one or several runs. In a notebook it shows itself as a table.

    Files are read when they are first needed, and kept.
    """

    run_dirs: tuple[Path, ...]

    @classmethod
    def of(cls, board: Board) -> Results:
        """The results of a board that has been read."""
        results = cls(board.run_dirs)
        vars(results)["_board"] = board
        return results

    @cached_property
    def rows(self) -> tuple[ResultRow, ...]:
        """All rows, one per record."""
        runs = self._board.runs
        return tuple(
            ResultRow(
                one.record,
                one.label,
                self.run_dirs,
                runs.samples.get(one.record.key),
                frozenset(runs.scores.get(one.record.key, ())),
            )
            for track in runs.tracks
            for one in track.rows
        )

    @property
    def records(self) -> tuple[Record, ...]:
        """All records."""
        return tuple(row.record for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ResultRow]:
        return iter(self.rows)

    def select(
        self, method: str | None = None, budget: float | None = None, task: str | None = None
    ) -> list[ResultRow]:
        """The rows of a method, a budget and a task; None stands for any.

        Args:
            method: a method's name, for all its variants, or the label of a row, as the board shows it; `-` or `:` may
                stand for the ` · ` in it.
            budget: exactly the target layer share that the record has, such as 0.5.
            task: the task's name.
        """
        rows = [row for row in self.rows if budget in (None, row.budget) and task in (None, row.task)]
        if method is None:
            return rows
        label = label_meant(method, (row.label for row in self.rows))
        return [row for row in rows if row.method == method or row.label == label]

    def row(self, method: str, budget: float | None = None, task: str | None = None) -> ResultRow:
        """The one row of a method, a budget and a task; None stands for any.

        Of several variants it is the one whose label is `method`; see `select` for what may be given.

        Raises:
            DlbenchError: there is none, or there are several.
        """
        rows = self.select(method, budget, task)
        if len(rows) > 1:
            rows = [row for row in rows if row.label == method] or rows
        if len(rows) == 1:
            return rows[0]
        there = [f"{row.label} on {row.task} at {row.budget}" for row in rows or self.rows]
        what = "no row is" if not rows else f"{len(rows)} rows are"
        raise DlbenchError(f"{what} of {method!r} at {budget} on {task}: there is {'; '.join(dict.fromkeys(there))}")

    def frame(self) -> pandas.DataFrame:
        """All records as a table, a row each, with the columns of the board's CSV, typed."""
        import pandas

        from dlbench.leaderboard.exports import table_rows

        return pandas.DataFrame(table_rows(self._board.views, self._board.standings)).convert_dtypes()

    def to_parquet(self, path: str | Path) -> Path:
        """Write `frame` as a Parquet file, and return its path."""
        place = Path(path).expanduser()
        self.frame().to_parquet(place, index=False)
        return place

    def to_dataset(self, folder: str | Path) -> Path:
        """Write records and samples as a Hugging Face data set, which `datasets.load_dataset(folder, …)` loads.

        The folder has `records.parquet`, `samples.parquet` where the samples are there, and a card, `README.md`; each
        of the two tables is a configuration, split `train`.

        Args:
            folder: a new or an empty one; it is returned.

        Raises:
            DlbenchError: it holds something already.
        """
        from dlbench.api.dataset_folder import write_dataset

        return write_dataset(self.frame(), self.rows, self.headlines(), Path(folder).expanduser())

    def board(self, out: str | Path | None = None) -> Path:
        """Build the site, and return its first page.

        Args:
            out: folder of the site; None for `site` in the only run's folder.

        Raises:
            DlbenchError: there are several runs and no `out`, or `out` is a file, a run folder, or cannot be written.
        """
        from dlbench.leaderboard import site

        if out is None and len(self.run_dirs) > 1:
            raise DlbenchError("a board of several runs needs a folder: board(out=…)")
        place = self.run_dirs[0] / "site" if out is None else Path(out).expanduser()
        site.check_place(self.run_dirs, place)
        return Path(site.build(self._board, place))

    def headlines(self) -> list[str]:
        """What the numbers say, in sentences, as at the end of a run."""
        return self._board.headlines()

    def chart(self, task: str | None = None, cost: str = "layers") -> Chart:
        """Quality against compute. In a notebook the chart shows itself.

        Args:
            task: the task; None for the only one, or all tasks together.
            cost: "layers", "decode" or "total" (FLOPs of decoding, or of prompt and decoding); where measured, also
                "token1" and "document1" (time per token or document at batch 1), "memory1" and "energy1", and
                the other batch sizes likewise.

        Raises:
            DlbenchError: there is no such task or cost.
        """
        from dlbench.leaderboard.charts import frontier, style

        view = self._view(task)
        axis = next((axis for axis in view.axes if axis.key == cost), None)
        if axis is None:
            raise DlbenchError(f"no cost {cost!r}: there is {', '.join(axis.key for axis in view.axes)}")
        marks = style.site_marks(self._board.views)
        data = frontier.datasets(view, marks, axis, self._board.standings[view.slug])
        return Chart(frontier.specification(view, data, axis))

    @cached_property
    def _board(self) -> Board:
        return read_board(self.run_dirs)

    def _view(self, task: str | None) -> BoardView:
        views = self._board.views
        if task is None:
            return next((view for view in views if view.suite), views[0])
        for view in views:
            if not view.suite and view.tracks[0].task.name == task:
                return view
        there = dict.fromkeys(view.tracks[0].task.name for view in views if not view.suite)
        raise DlbenchError(f"no task {task!r} in these results: there is {', '.join(there)}")

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.rows[0].figures) if self.rows else ""
        cells = ("".join(f"<td>{escape(text)}</td>" for text in row.figures.values()) for row in self.rows)
        return f"<table><tr>{head}</tr>" + "".join(f"<tr>{one}</tr>" for one in cells) + "</table>"
