"""A column of a table: what it reads from a line, and how it shows in each output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, get_args

from dlbench.leaderboard.formatting import NOTHING

Line = TypeVar("Line")
Output = Literal["page", "method", "terminal", "latex", "csv", "json"]
"""`page`: the sortable table of a page; `method`: the table of rows on a method's page."""
OUTPUTS: tuple[Output, ...] = get_args(Output)


# Without slots: a frozen class with slots cannot be generic in Python 3.11.
@dataclass(frozen=True)
class Cell(Generic[Line]):
    """How a column shows in one output.

    Attributes:
        title: heading, with a line break at each newline; in CSV and JSON the name of the field.
        value: what the cell is made of, where that is more than the column's value.
        format: how it is written, where that differs from the column's format. For LaTeX it writes LaTeX; for JSON it
            replaces the rounding to five digits.
        macro: the macro of `cells.html.j2` that writes the cell, where it is more than a text.
        span: how many cells the macro writes.
        group: heading above neighbours that share it.
        before: key of the column that it stands before, where that column shows too; "" for the end of the table.
            Without one it stands where the table of columns has it.
    """

    title: str
    value: Callable[[Line], Any] | None = None
    format: Callable[[Any], Any] | None = None
    macro: str = ""
    span: int = 1
    group: str = ""
    before: str | None = None


@dataclass(frozen=True, kw_only=True)
class Column(Generic[Line]):
    """A column of a table. It shows in the outputs for which it has a cell.

    Attributes:
        key: unique in its table; the name by which an address sorts a page.
        value: the figure of a line; None where the line has none, which is shown as a dash.
        format: how the figure is written as text.
        help: what the heading says on hover.
        best: the end that a first click on the heading puts on top.
        sorts: whether a page can be sorted by it.
        left: aligned to the left, as text is.
    """

    key: str
    value: Callable[[Line], Any]
    format: Callable[[Any], str] = str
    help: str = ""
    best: Literal["least", "most"] = "least"
    sorts: bool = True
    left: bool = False
    page: Cell[Line] | None = None
    method: Cell[Line] | None = None
    terminal: Cell[Line] | None = None
    latex: Cell[Line] | None = None
    csv: Cell[Line] | None = None
    json: Cell[Line] | None = None

    def cell(self, output: Output) -> Cell[Line]:
        """Return how it shows in an output, in which it must show."""
        cell: Cell[Line] | None = getattr(self, output)
        assert cell is not None, f"column {self.key} does not show in {output}"
        return cell

    def read(self, output: Output, line: Line) -> Any:
        """Return what an output writes of a line."""
        return (self.cell(output).value or self.value)(line)

    def text(self, output: Output, line: Line) -> str:
        """Return the text of a line's cell; a dash where there is nothing to write."""
        value = self.read(output, line)
        return NOTHING if value is None else str((self.cell(output).format or self.format)(value))


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What the columns of one table depend on.

    Attributes:
        metric: name of the score; None over several tasks, which share no score.
        decimals: of scores.
        batches: batch sizes that were timed.
        samples: whether some rows have pages of samples.
        extras: names of further metrics.
        wide: whether a terminal has room for all columns.
        targets: shares of full depth's quality for which the least compute is asked.
        budgets: at which the methods ran.
        gap_budgets: those of them at which the gap closed is known.
    """

    metric: str | None = None
    decimals: int = 3
    batches: Sequence[int] = ()
    samples: bool = False
    extras: Sequence[str] = ()
    wide: bool = True
    targets: Sequence[float] = ()
    budgets: Sequence[float] = ()
    gap_budgets: Sequence[float] = ()


Table = Sequence[Column[Line] | Callable[[TableInfo], Iterable[Column[Line]]]]
"""Columns in order. A function stands for the columns that depend on the table, such as one per batch size."""


def columns_of(table: Table[Line], output: Output, info: TableInfo) -> list[Column[Line]]:
    """Return the columns that an output shows, in its order."""
    columns: list[Column[Line]] = []
    for item in table:
        columns += [item] if isinstance(item, Column) else item(info)
    showing = {column.key: column for column in columns if getattr(column, output) is not None}
    moved = {key: before for key, column in showing.items() if (before := column.cell(output).before) is not None}
    moved = {key: before for key, before in moved.items() if before in showing or not before}
    ordered = [key for key in showing if key not in moved]
    for key, before in moved.items():
        ordered.insert(ordered.index(before) if before else len(ordered), key)
    return [showing[key] for key in ordered]
