"""The head of an HTML table, out of its columns: which headings stand in groups, and what every cell spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dlbench.leaderboard.columns.column import Column, Line, Output


@dataclass(frozen=True, slots=True)
class HeaderCell:
    """A cell in the head of a table.

    Attributes:
        scope: `colgroup` where it stands over several columns.
        css: its classes.
        sort: the name by which the table is sorted by it; empty where it is not.
        best: the end that a first click on it puts on top.
        help: shown on hover.
    """

    title: str
    scope: Literal["col", "colgroup"] = "col"
    colspan: int = 1
    rowspan: int = 1
    css: str = ""
    sort: str = ""
    best: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True)
class HtmlTable:
    """What a template needs to write a table.

    Attributes:
        columns: in order.
        header: one row of cells, or two where columns stand in groups.
        width: how many cells a line has.
    """

    columns: Sequence[Column[Any]]
    header: Sequence[Sequence[HeaderCell]]
    width: int


def html_table(columns: Sequence[Column[Line]], output: Output) -> HtmlTable:
    """Return the columns of a table with their head."""
    cells = [column.cell(output) for column in columns]
    grouped = any(cell.group for cell in cells)
    top: list[HeaderCell] = []
    below: list[HeaderCell] = []
    group = ""
    for column, cell in zip(columns, cells, strict=True):
        if cell.group and cell.group != group:
            spanned = sum(one.span for one in cells if one.group == cell.group)
            top.append(HeaderCell(cell.group, "colgroup", spanned, css="group"))
        group = cell.group
        heading = HeaderCell(
            cell.title,
            colspan=cell.span,
            rowspan=2 if grouped and not group else 1,
            css="l" if column.left else "",
            sort=column.key if column.sorts and output == "page" else "",
            best=column.best if column.sorts and output == "page" else "",
            help=column.help if output == "page" else "",
        )
        (below if group else top).append(heading)
    return HtmlTable(columns, [top, below] if grouped else [top], sum(cell.span for cell in cells))
