"""What stands above the fold of a view's page, on each cost axis: a headline, three cards and the ranking of methods.

All figures come from `AxisVerdict`; here they are put into words. The page shows the first axis, and a script changes
to what was rendered for another, so both are written by the same templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dlbench.leaderboard import formatting
from dlbench.leaderboard.analysis.axis_verdict import AxisVerdict, Versus
from dlbench.leaderboard.analysis.compute_breakdown import heat
from dlbench.leaderboard.analysis.headlines import at_mark, axis_headline
from dlbench.leaderboard.analysis.ranking import RankedPlace
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.columns.column import TableInfo
from dlbench.leaderboard.columns.html_table import html_table
from dlbench.leaderboard.columns.row_columns import row_columns
from dlbench.leaderboard.columns.row_line import entry_lines
from dlbench.leaderboard.data.cost_axes import Axis
from dlbench.leaderboard.data.entries import BoardEntry, kind_of, series
from dlbench.leaderboard.data.run_again import commands
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.pages.environment import environment
from dlbench.leaderboard.pages.site_context import Site
from dlbench.records.schema import Usage

MOST_LINES = 150
"""Lines of the ranking; the others stand among the rows."""
MOST_HEAT = 20
"""Tasks, or budgets, that get a cell of their own in the ranking."""
_DETAILS = ("budget", "kept", "score", "layers", "decode", "total", "samples")
"""Columns of every row that an opened line of the ranking shows, with those of times."""


@dataclass(frozen=True, slots=True)
class VerdictCard:
    """One of the three answers above the chart.

    Attributes:
        title: the question.
        label: the series that is the answer; empty where there is none.
        figure, interval: the answer's number.
        lines: how sure it is, and what it costs.
    """

    title: str
    label: str
    figure: str
    interval: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RankingLine:
    """A line of the ranking: a method, or what it is to be compared with.

    Attributes:
        entry: the setting that stands for it on this axis.
        place: its rank; controls and references have none.
        bounds: 95 % interval of what is kept.
        heat: what it keeps on each task; of one task, at each budget.
        least: what its cheapest setting costs, where none is so cheap as the axis asks for.
    """

    label: str
    kind: str
    entry: BoardEntry
    place: RankedPlace | None
    bounds: tuple[float, float] | None
    heat: tuple[float | None, ...]
    on_front: bool
    least: float | None


def fronts_of(
    site: Site, view: BoardView, standings: Standings, samples: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Return what the page shows on each axis, as HTML: `headline`, `cards` and `ranking`.

    Args:
        site: what all pages have in common.
        view: the view.
        standings: its statistics.
        samples: entry → its page of samples.
    """
    names = environment().get_template("ranking.html.j2"), environment().get_template("cards.html.j2")
    labels = list(dict.fromkeys(entry.label for entry in view.entries))
    shared = {
        "view": view,
        "symbol_of": {label: number for number, label in enumerate(labels)},
        "page_of": site.pages,
        "introduced": site.introduced,
        "samples": samples,
        "heads": _heat_heads(view),
    }
    fronts = {}
    for axis in view.axes:
        verdict = standings.verdicts.get(axis.key, AxisVerdict())
        context = shared | {
            "axis": axis,
            "mark": "" if verdict.mark is None else at_mark(axis, verdict.mark),
            "cards": _cards(axis, verdict, standings),
            "ranking": _ranking(view, axis, verdict, standings),
        }
        ranking, cards = (template.render(context) for template in names)
        fronts[axis.key] = {"headline": axis_headline(view, standings, axis), "cards": cards, "ranking": ranking}
    return fronts


def findings(view: BoardView, standings: Standings) -> list[tuple[str, str]]:
    """Return what the view says on each axis that has something to say: the address to show it, and a sentence."""
    said = []
    for axis in view.axes:
        verdict = standings.verdicts.get(axis.key)
        if verdict is None or verdict.best is None:
            continue
        said.append((f"#axis={axis.key}", _finding(axis, verdict, standings)))
    return said[:5]


def _finding(axis: Axis, verdict: AxisVerdict, standings: Standings) -> str:
    best = verdict.best
    assert best is not None and verdict.mark is not None
    line = f"A{at_mark(axis, verdict.mark)[1:]}, {best.label} keeps {_kept(best)}{_interval(best, standings)}"
    line += f" of full depth’s quality{_ahead(verdict.second)}"
    controls = [one for one in verdict.chosen.values() if kind_of(one) == "control"]
    above = max(controls, key=lambda one: (one.retained or 0.0, one.id), default=best)
    if (above.retained or 0.0) > (best.retained or 0.0):
        line += f"; the control {above.label} keeps more, {_kept(above)}{_interval(above, standings)}"
    return f"{line}."


def _cards(axis: Axis, verdict: AxisVerdict, standings: Standings) -> list[VerdictCard]:
    where = f"at half of {axis.of}" if verdict.mark is None else at_mark(axis, verdict.mark)
    return [_best(where, axis, verdict, standings), _enough(axis, verdict, standings), _bar(axis, verdict, standings)]


def _best(where: str, axis: Axis, verdict: AxisVerdict, standings: Standings) -> VerdictCard:
    entry, title = verdict.best, f"Best {where}"
    if entry is None:
        return VerdictCard(
            title, "", "none", "", (f"No method with a known quality costs less than all of {axis.of}.",)
        )
    lines = []
    place = verdict.places.get(entry.label)
    if place is not None and len(verdict.places) > 1:
        sure = "surely first" if place.high == 1 else f"first as measured, place {place.low}–{place.high}"
        lines.append(f"{sure} of {len(verdict.places)}" + _ahead(verdict.second))
    elif place is not None:
        lines.append("the only method there")
    return VerdictCard(title, entry.label, _kept(entry), _interval(entry, standings), (*lines, *_spent(entry, axis)))


def _ahead(versus: Versus | None) -> str:
    return "" if versus is None else f", {_against(versus)}"


def _against(versus: Versus) -> str:
    points = f"{100 * abs(versus.estimate):.1f}"
    if versus.verdict == 0:
        return f"not told apart from {versus.other.label} ({100 * versus.estimate:+.1f} points)".replace("-", "−")
    return f"{points} points {'ahead of' if versus.verdict > 0 else 'behind'} {versus.other.label}"


def _enough(axis: Axis, verdict: AxisVerdict, standings: Standings) -> VerdictCard:
    title, entry = "Enough for 95 %", verdict.enough.entry
    if entry is not None and entry.costs[axis.key] >= 1:
        line = f"{entry.label} keeps it, at {formatting.hundredths(entry.costs[axis.key])} % of {axis.of}"
        return VerdictCard(title, "", "none below full", "", (line, *_spent(entry, axis, own=False)))
    if entry is not None:
        cost = f"{formatting.hundredths(entry.costs[axis.key])} %"
        line = f"of {axis.of} keeps {_kept(entry)}{_interval(entry, standings)}, at least 95 % beyond doubt"
        return VerdictCard(title, entry.label, cost, "", (line, *_spent(entry, axis, own=False)))
    nearest = verdict.nearest
    if nearest is None:
        return VerdictCard(title, "", verdict.enough.reason, "", ())
    near = f"nearest: {nearest.label}, {_kept(nearest)}{_interval(nearest, standings)}"
    lines = (near, *_spent(nearest, axis))
    return VerdictCard(title, "", "no method" if verdict.enough.reason == "not reached" else "unknown", "", lines)


def _bar(axis: Axis, verdict: AxisVerdict, standings: Standings) -> VerdictCard:
    entry = verdict.bar
    if entry is None:
        return VerdictCard(
            "Bar to beat", "", "none", "", ("Neither a smaller dense model nor a control ran at this cost.",)
        )
    title = "Bar to beat: the smaller dense model" if entry.role == "dense" else "Bar to beat: the strongest control"
    lines: tuple[str, ...] = ()
    if verdict.beats_bar is not None and verdict.best is not None:
        lines = (f"{verdict.best.label} is {_against(verdict.beats_bar)}",)
    return VerdictCard(title, entry.label, _kept(entry), _interval(entry, standings), (*lines, *_spent(entry, axis)))


def _kept(entry: BoardEntry) -> str:
    return f"{formatting.hundredths(entry.retained)} %"


def _interval(entry: BoardEntry, standings: Standings) -> str:
    bounds = standings.bounds_of(entry)
    return "" if bounds is None else f" [{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def _spent(entry: BoardEntry, axis: Axis, *, own: bool = True) -> tuple[str, ...]:
    """Return the costs of a setting: on the axis, and what the time is."""
    spent = [f"{formatting.hundredths(entry.costs[axis.key])} % of {axis.of}"] if own else []
    if axis.key != "decode" and "decode" in entry.costs:
        spent.append(f"{formatting.hundredths(entry.costs['decode'])} % of decode FLOPs")
    speeds = [
        f"{formatting.speedup(times.speedup)} at batch {batch}" for batch, times in entry.times.items() if times.speedup
    ]
    lines = [" · ".join(spent), f"speed {' · '.join(speeds)}" if speeds else ""]
    return tuple(line for line in lines if line)


def _ranking(view: BoardView, axis: Axis, verdict: AxisVerdict, standings: Standings) -> list[RankingLine]:
    """Return methods by what they keep, controls and references between them, then those that cost too much."""
    front = standings.axis_fronts.get(axis.key, frozenset())
    of_label = {one.label: one.kept for one in standings.summaries}
    by_label = series(view.entries)

    def line(entry: BoardEntry, least: float | None = None) -> RankingLine:
        kept = of_label.get(entry.label, {})
        return RankingLine(
            label=entry.label,
            kind=kind_of(entry),
            entry=entry,
            place=verdict.places.get(entry.label),
            bounds=None if entry.role == "full" else standings.bounds_of(entry),
            heat=entry.kept_by_task[:MOST_HEAT] if view.suite else tuple(map(kept.get, _budgets(view))),
            on_front=entry.id in front,
            least=least,
        )

    references = [entry for entry in view.of("full", "dense") if entry.ok]
    there = [line(entry) for entry in (*verdict.chosen.values(), *references)]
    there.sort(key=lambda one: (-(one.entry.retained or 0.0), one.place.rank if one.place else 0, one.label))
    dear = [
        line(min(by_label[label], key=lambda one: one.costs.get(axis.key, 9.0)), least)
        for label, least in sorted(verdict.least.items(), key=lambda one: (one[1], one[0]))
    ]
    return [*there, *dear][:MOST_LINES]


def _budgets(view: BoardView) -> list[float]:
    return sorted({entry.budget for entry in view.of("method") if entry.budget is not None})[:MOST_HEAT]


def _heat_heads(view: BoardView) -> list[str]:
    """Return the headings of the cells by task, or by budget, short enough to stand side by side."""
    if not view.suite:
        return [f"{formatting.number(100 * budget)} %" for budget in _budgets(view)]
    names = [track.task.name for track in view.tracks][:MOST_HEAT]
    parts = [name.split("_") for name in names]
    shared = len(parts) > 1 and len({part[0] for part in parts}) == 1 and all(len(part) > 1 for part in parts)
    return ["_".join(part[1:]) if shared else "_".join(part) for part in parts]


def details_of(
    site: Site, view: BoardView, standings: Standings, samples: Mapping[str, str], usage: Mapping[str, Usage]
) -> dict[str, str]:
    """Return what an opened line of the ranking shows, as HTML by label: all settings, hashes, command and layers.

    Args:
        site: what all pages have in common.
        view: the view.
        standings: its statistics.
        samples: entry → its page of samples.
        usage: record key → how often each layer ran.
    """
    info = TableInfo(batches=view.batches, samples=bool(samples))
    keys = {*_DETAILS, *(f"token{batch}" for batch in view.batches)}
    columns = [column for column in row_columns("page", info) if column.key in keys]
    template = environment().get_template("details.html.j2")
    shared = {"table": html_table(columns, "page"), "samples": samples, "view": view, "page_of": site.pages}
    details = {}
    for label, entries in series(view.entries).items():
        records = [row.record for entry in entries for same in entry.rows for row in same]
        details[label] = template.render(
            **shared,
            label=label,
            method=entries[0].method,
            lines=entry_lines(view, entries, standings),
            settings=_distinct(entry.settings for entry in entries),
            command="\n".join(commands(entries, entries[0].method)),
            sources=_distinct(record.method.source_sha256 for record in records),
            heat=heat([entry for entry in entries if entry.ok], usage),
            task=view.tracks[0].task.name,
        )
    return details


def _distinct(values: Iterable[str]) -> Sequence[str]:
    return [value for value in dict.fromkeys(values) if value][:12]


def front_context(fronts: Mapping[str, Mapping[str, str]], view: BoardView, standings: Standings) -> dict[str, Any]:
    """Return what the template of the page needs to show the first axis."""
    first = fronts.get(view.axes[0].key, {}) if view.axes else {}
    return {
        "headline": first.get("headline") or f"Quality and cost on {view.backbone}",
        # safe: rendered by templates that escape every text
        "cards": Markup(first.get("cards", "")),
        "ranking": Markup(first.get("ranking", "")),
        "findings": findings(view, standings),
    }
