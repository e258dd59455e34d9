"""The board's figures for other programs: CSV, JSON, LaTeX and BibTeX."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dlbench
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.columns.column import Column, Line, TableInfo
from dlbench.leaderboard.columns.method_columns import method_columns
from dlbench.leaderboard.columns.row_columns import RowColumn, row_columns
from dlbench.leaderboard.columns.row_line import RowLine, entry_lines, record_lines
from dlbench.leaderboard.data.entries import series
from dlbench.leaderboard.data.run_files import Runs
from dlbench.leaderboard.data.tracks import Track
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.formatting import NOTHING
from dlbench.records.jsonl import format_line


def table_rows(views: Iterable[BoardView], standings: Mapping[str, Standings]) -> list[dict[str, Any]]:
    """Return all records as rows of one flat table, by column: a row per record, with the figures of its setting.

    Args:
        views: of one task each; others are left out, since their tasks stand alone too.
        standings: the statistics of the views, by slug.
    """
    rows = []
    columns: dict[tuple[int, ...], list[RowColumn]] = {}
    single = sorted((view for view in views if not view.suite), key=lambda view: _track_order(view.tracks[0]))
    for view in single:
        for line in record_lines(view, standings[view.slug]):
            batches = tuple(sorted(line.entry.times))
            if batches not in columns:
                columns[batches] = row_columns("csv", TableInfo(batches=batches))
            rows.append({one.cell("csv").title: one.read("csv", line) for one in columns[batches]})
    return rows


def table_csv(views: Iterable[BoardView], standings: Mapping[str, Standings]) -> str:
    """Return the rows of `table_rows` as CSV, for spreadsheets."""
    rows = table_rows(views, standings)
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


def _track_order(track: Track) -> tuple[str, str, str, str]:
    return track.task.name, track.task.version, track.name, track.task.metric


def _cell(value: object) -> object:
    # A spreadsheet would run a text that starts so as a formula.
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def digests(runs: Runs) -> dict[str, str]:
    """Return the SHA-256 of all records, of all times and of all scores."""
    parts = {
        "records": (format_line(record) for record in runs.records),
        "timing": (format_line(timing) for timing in runs.timings),
        "scores": (json.dumps([key, runs.scores[key]], sort_keys=True, default=dict) for key in sorted(runs.scores)),
    }
    if any(runs.sources.values()):
        shared = sorted(runs.sources.items())
        parts["sources"] = (json.dumps([track, sources], sort_keys=True) for track, sources in shared)
    return {name: _sha256(lines) for name, lines in parts.items()}


def _sha256(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def board_json(runs: Runs, views: Sequence[BoardView], standings: Mapping[str, Standings]) -> str:
    """Return the whole board as JSON: every view with every row's figures, ranks and intervals, rounded.

    Figures have five digits: more would change with the machine that counts them.
    """
    views_json = [_view_json(view, standings[view.slug]) for view in views]
    # One line per row: a repository keeps this file, and people read how it changes.
    head = {"dlbench": dlbench.__version__, "sha256": digests(runs)}
    return f'{_json(head)[:-1]},\n"views":[\n' + ",\n".join(views_json) + "\n]}\n"


def _view_json(view: BoardView, standings: Standings) -> str:
    head = {
        "name": view.slug,
        "title": view.title,
        "backbone": view.backbone,
        "metric": view.metric,
        "documents": view.documents,
        "tracks": [track.name for track in view.tracks],
    }
    of_methods = method_columns("json", TableInfo())
    of_rows = row_columns("json", TableInfo(batches=view.batches))
    methods = ",\n".join(_line_json(of_methods, summary) for summary in standings.summaries)
    rows = ",\n".join(_line_json(of_rows, line) for line in entry_lines(view, view.entries, standings))
    return f'{_json(head)[:-1]},\n"methods":[\n{methods}\n],\n"rows":[\n{rows}\n]}}'


def _line_json(columns: Iterable[Column[Line]], line: Line) -> str:
    fields = {}
    for column in columns:
        cell = column.cell("json")
        fields[cell.title] = (cell.format or _rounded)(column.read("json", line))
    return _json(fields)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _rounded(value: Any) -> Any:
    """Return a value with all numbers in it rounded to five digits."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "·": r"$\cdot$",
}


def tex(text: str) -> str:
    """Escape a text for LaTeX."""
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def table_latex(view: BoardView, standings: Standings) -> str:
    """Return a view as a LaTeX table (booktabs): a line per method, with the cells of every budget side by side."""
    columns = row_columns("latex", TableInfo(batches=view.batches))
    budgets = sorted({entry.budget for entry in view.of("method", "oracle") if entry.budget is not None})
    titles = "; ".join(column.cell("latex").title for column in columns)
    heads = [rf"{100 * budget:g}\,\%" for budget in budgets] + ["other"]
    # The comment names the first column; the others are named in their headings.
    named = [f"{tex(column.cell('latex').title)}, {head}" for column in columns[1:] for head in heads]
    lines = [
        f"% {tex(view.title)} on {tex(view.backbone)}: {titles}",
        rf"\begin{{tabular}}{{l{'r' * (len(columns) * len(heads))}}}",
        r"\toprule",
        " & ".join(["method", *heads, *named]) + r" \\",
        r"\midrule",
    ]
    before = ""
    for label, entries in series(view.entries).items():
        if before and before != entries[0].role and "oracle" in (before, entries[0].role):
            lines.append(r"\midrule")
        before = entries[0].role
        by_budget = {line.entry.budget: line for line in entry_lines(view, entries, standings)}
        cells = [
            _latex_cell(column, by_budget[budget]) if budget in by_budget else "--"
            for column in columns
            for budget in (*budgets, None)
        ]
        lines.append(" & ".join([tex(label), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _latex_cell(column: RowColumn, line: RowLine) -> str:
    text = column.text("latex", line)
    if text == NOTHING:
        return "--"
    return text if column.cell("latex").format else tex(text)


def bibtex(runs: Runs, papers: Iterable[str]) -> str:
    """Return BibTeX entries for this board, named by the hash of its records, and for the papers of its methods."""
    digest = digests(runs)["records"]
    entries = [
        f"@misc{{dlbench-board-{digest[:8]},\n"
        "  title = {{dlbench leaderboard}},\n"
        f"  note = {{{len(runs.records)} records, SHA-256 {digest}, built by dlbench {tex(dlbench.__version__)}}}\n}}"
    ]
    for paper in sorted(set(papers)):
        entries.append(
            f"@misc{{arxiv-{paper},\n  title = {{{{arXiv:{paper}}}}},\n  eprint = {{{paper}}},\n"
            f"  archivePrefix = {{arXiv}},\n  url = {{https://arxiv.org/abs/{paper}}}\n}}"
        )
    return "\n\n".join(entries) + "\n"
