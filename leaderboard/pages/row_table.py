"""The table of every row of a view: its columns, its sections, and what is said about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from dlbench.leaderboard import formatting
from dlbench.leaderboard.analysis.ranking import RERUN
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.columns.column import TableInfo
from dlbench.leaderboard.columns.html_table import html_table
from dlbench.leaderboard.columns.row_columns import row_columns
from dlbench.leaderboard.columns.row_line import RowLine, entry_lines
from dlbench.leaderboard.data.entries import BoardEntry, kind_of
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.pages.site_context import MOST_ROWS, Site, rows_file


def row_section(
    site: Site, view: BoardView, standings: Standings, samples: Mapping[str, str], whole: bool
) -> dict[str, Any]:
    """Return what the template needs to show the rows.

    Args:
        site: what all pages have in common.
        view: whose rows.
        standings: its statistics.
        samples: entry → its page of samples.
        whole: show every row, however many there are.
    """
    every = whole or len(view.entries) <= MOST_ROWS
    info = TableInfo(
        metric=None if view.suite else view.metric,
        decimals=formatting.decimals(entry.score for entry in view.entries if entry.score is not None),
        batches=view.batches,
        samples=bool(samples),
    )
    return {
        "rank_note": _rank_note(view, site.common_trust),
        "kinds": _kinds(view),
        "row_table": html_table(row_columns("page", info), "page"),
        "sections": _sections(view, view.entries if every else _one_each(view), standings),
        "samples": samples,
        "common_trust": site.common_trust,
        "beyond": None if every else rows_file(site, view),
        "missing": _missing(view),
    }


def _kinds(view: BoardView) -> list[tuple[str, str]]:
    titles = {"method": "methods", "control": "controls", "reference": "references", "oracle": "oracles"}
    there = {"reference" if kind_of(one) in ("full", "dense") else kind_of(one) for one in view.entries}
    return [(kind, title) for kind, title in titles.items() if kind in there] if len(there) > 1 else []


def _rank_note(view: BoardView, common_trust: str) -> str:
    said = "Ranked by quality within each budget, with the ranks that the data leave open, all at once."
    trusts = {entry.trust for entry in view.entries}
    if not trusts & RERUN:
        return f"{said} All rows are {common_trust or 'self-reported or validated'}: nobody has rerun them yet."
    if trusts - RERUN:
        return f"{said} Only rows that were rerun are ranked; the others stand below them."
    return said


def _missing(view: BoardView) -> str:
    if not view.missing:
        return ""
    listed = ", ".join(f"{label} ({count} of {len(view.tracks)})" for label, count in view.missing)
    return f"Not on all tasks, so not averaged here: {listed}. See the tasks one by one."


def _sections(view: BoardView, entries: Sequence[BoardEntry], standings: Standings) -> list[tuple[str, list[RowLine]]]:
    """Return the rows in sections: references, each budget from the largest, oracles."""
    references = [entry for entry in entries if entry.role in ("full", "dense")]
    oracles = [entry for entry in entries if entry.role == "oracle"]
    by_budget: dict[float | None, list[BoardEntry]] = defaultdict(list)
    for entry in entries:
        if entry.role == "method":
            by_budget[entry.budget].append(entry)

    def order(entry: BoardEntry) -> tuple[Any, ...]:
        place = standings.places.get(entry.id)
        return (place is None, place.rank if place else 0, not entry.ok, -(entry.retained or 0.0), entry.label)

    sections = [("Full depth, and models trained smaller", references)]
    for budget in sorted(by_budget, key=lambda one: -(one or 0.0)):
        title = "Without a budget" if budget is None else f"At {100 * budget:.6g} % of the layers"
        sections.append((title, sorted(by_budget[budget], key=order)))
    sections.append(("Oracles: they see what deployment cannot. Ceilings to measure against, not entries", oracles))
    return [(title, entry_lines(view, members, standings)) for title, members in sections if members]


def _one_each(view: BoardView) -> list[BoardEntry]:
    """Return one entry per series: the one nearest to half of the layers."""
    best: dict[str, BoardEntry] = {}
    for entry in view.entries:
        far = abs((entry.budget or 0.5) - 0.5)
        kept = best.get(entry.label)
        if kept is None or (not entry.ok, far) < (not kept.ok, abs((kept.budget or 0.5) - 0.5)):
            best[entry.label] = entry
    return list(best.values())[:MOST_ROWS]
