"""The columns of methods over all budgets: the summary table of a page, and the methods of `board.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from markupsafe import Markup

from dlbench import stats
from dlbench.leaderboard import formatting
from dlbench.leaderboard.analysis.enough import Enough
from dlbench.leaderboard.analysis.method_stats import Summary
from dlbench.leaderboard.analysis.ranking import RankedPlace
from dlbench.leaderboard.columns.column import Cell, Column, Output, Table, TableInfo, columns_of

MethodColumn = Column[Summary]
MethodCell = Cell[Summary]


def _interval(interval: stats.Interval | None) -> dict[str, float] | None:
    if interval is None:
        return None
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


def _enough(summary: Summary) -> dict[str, Any]:
    return {
        f"{target:g}": {"layers": least.layers, "total": least.total, "reason": least.reason}
        for target, least in sorted(summary.enough.items())
    }


def _rank_text(place: RankedPlace) -> str:
    return f"{place.rank}" if place.low == place.high else f"{place.rank} ({place.low}–{place.high})"


def _enough_text(least: Enough) -> str:
    if least.total is None:
        return least.reason
    return f"{formatting.hundredths(least.total)} ({formatting.hundredths(least.layers)})"


def _gap_text(gap: stats.Interval) -> str:
    return formatting.hundredths(gap.estimate)


def _at(figures: Callable[[Summary], Mapping[float, Any]], at: float) -> Callable[[Summary], Any]:
    return lambda summary: figures(summary).get(at)


_ENOUGH = (
    "The cheapest setting, by total FLOPs, that keeps so much beyond doubt, as do all dearer ones: its share of full's "
    "total FLOPs, by which it is chosen, beside that of the layers"
)


def _targets(info: TableInfo) -> Iterable[MethodColumn]:
    for number, target in enumerate(info.targets):
        title = Markup("Enough for {}\nFLOPs <small>layers</small>").format(formatting.whole(target))
        yield MethodColumn(
            key=f"at{number}",
            value=_at(lambda summary: summary.enough, target),
            help=_ENOUGH,
            page=MethodCell(title, macro="enough"),
            terminal=MethodCell(f"{formatting.whole(target)} at FLOPs\n(layers), %", format=_enough_text),
        )


def _kept(info: TableInfo) -> Iterable[MethodColumn]:
    for number, budget in enumerate(info.budgets):
        yield MethodColumn(
            key=f"kept{number}",
            value=_at(lambda summary: summary.kept, budget),
            format=formatting.hundredths,
            best="most",
            page=MethodCell(f"Kept at\n{formatting.number(100 * budget)} %"),
        )


def _gaps(info: TableInfo) -> Iterable[MethodColumn]:
    for number, budget in enumerate(info.gap_budgets):
        yield MethodColumn(
            key=f"gap{number}",
            value=_at(lambda summary: summary.gaps, budget),
            help="(method − random) ÷ (oracle − random), against the honest oracle",
            best="most",
            left=True,
            page=MethodCell(f"Gap closed\nat {formatting.number(100 * budget)} %", macro="gap"),
            terminal=MethodCell(f"gap, %\nat {formatting.number(100 * budget)} %", format=_gap_text),
        )


METHODS: Table[Summary] = (
    MethodColumn(
        key="name",
        value=lambda summary: summary.label,
        left=True,
        page=MethodCell("Method", macro="method"),
        terminal=MethodCell("method", before="rank"),
        json=MethodCell("label"),
    ),
    MethodColumn(
        key="kind",
        value=lambda summary: summary.kind,
        left=True,
        terminal=MethodCell("kind", before="rank"),
        json=MethodCell("kind"),
    ),
    MethodColumn(
        key="rank",
        value=lambda summary: summary.place and summary.place.rank,
        page=MethodCell("Rank", lambda summary: summary.place, macro="place", span=2, before="name"),
        terminal=MethodCell("rank", lambda summary: summary.place, _rank_text),
        json=MethodCell("rank"),
    ),
    MethodColumn(
        key="rank_interval",
        value=lambda summary: summary.place and (summary.place.low, summary.place.high),
        json=MethodCell("rank_interval"),
    ),
    MethodColumn(
        key="area",
        value=lambda summary: summary.area,
        best="most",
        left=True,
        page=MethodCell("Area under its curve\n[95 %]", macro="area"),
        terminal=MethodCell("area", format=lambda area: f"{area.estimate:.3f}"),
        json=MethodCell("area", lambda summary: _interval(summary.area)),
    ),
    _targets,
    MethodColumn(key="enough", value=_enough, json=MethodCell("enough")),
    _kept,
    _gaps,
    MethodColumn(
        key="gap_closed",
        value=lambda summary: {f"{budget:g}": _interval(gap) for budget, gap in sorted(summary.gaps.items())},
        json=MethodCell("gap_closed"),
    ),
)
"""Every column of the tables of methods."""


def method_columns(output: Output, info: TableInfo) -> list[MethodColumn]:
    """Return the columns of methods that an output shows, in its order."""
    return columns_of(METHODS, output, info)
