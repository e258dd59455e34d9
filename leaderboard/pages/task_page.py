"""The page of a view: one task, or all tasks of a backbone together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dlbench.leaderboard.analysis.claims import Claim
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.charts.style import TELLING, view_marks
from dlbench.leaderboard.columns.column import TableInfo
from dlbench.leaderboard.columns.html_table import html_table
from dlbench.leaderboard.columns.method_columns import method_columns
from dlbench.leaderboard.data.run_again import commands
from dlbench.leaderboard.data.tracks import Row, cut_prompts
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.pages.chart_text import caption, chart_facts, legend
from dlbench.leaderboard.pages.environment import environment
from dlbench.leaderboard.pages.front_page import front_context
from dlbench.leaderboard.pages.row_table import row_section
from dlbench.leaderboard.pages.site_context import Site, ViewLink, file_of
from dlbench.records.schema import BackboneInfo

_SUMMARY_NOTE = (
    "One row per method. The area under its curve sums up the whole trade: it is the mean share of full's quality over "
    "the decoding FLOPs that the methods and controls with a row at every budget all cover. Controls have no rank. "
    "“Enough” is the cheapest setting, by total "
    "FLOPs, that keeps 95 % of the quality beyond doubt, as do all dearer ones."
)


def view_page(
    site: Site,
    view: BoardView,
    standings: Standings,
    claimed: tuple[Sequence[str], Sequence[Claim]],
    front: tuple[str | None, Mapping[str, Mapping[str, str]]],
    samples: Mapping[str, str],
    whole: bool = False,
) -> str:
    """Render the page of a view.

    Args:
        site: what all pages have in common.
        view: the task, or the tasks together.
        standings: its statistics.
        claimed: sentences about all tasks together, and comparisons of single methods.
        front: its chart, escaped, and what stands above and below it on every axis.
        samples: entry → its page of samples.
        whole: show every row, however many there are.
    """
    labels = list(dict.fromkeys(entry.label for entry in view.entries))
    context = {
        "root": "",
        "here": "board",
        "records": site.records,
        "view": view,
        "marks": [site.marks[label] for label in labels],
        "symbol_of": {label: number for number, label in enumerate(labels)},
        "page_of": site.pages,
        "picks": _picks(site, view),
        "lines": claimed[0],
        "said": sorted(claimed[1], key=_distance_from_half),
        **_intro(site, view),
        **front_context(front[1], view, standings),
        **_chart(site, view, standings, front[0]),
        **_method_section(view, standings),
        **row_section(site, view, standings, samples, whole),
        **_footer(site, view),
    }
    return environment().get_template("view.html.j2").render(context)


def _intro(site: Site, view: BoardView) -> dict[str, Any]:
    full = next((entry.first.record.backbone for entry in view.of("full")), None)
    records = [row.record for row in _rows(view)]
    return {
        "bar_facts": _bar_facts(view),
        "backbone_facts": "" if full is None else f" {_facts(full)}.",
        "warnings": [*site.warnings, *_machines(view), *cut_prompts(records)],
    }


def _machines(view: BoardView) -> list[str]:
    """Return a line where the times of a view's tasks come from several machines."""
    machines = sorted({t.machine for track in view.tracks for row in track.rows for t in row.timings.values()})
    if len(machines) < 2:
        return []
    return [
        f"Times come from {len(machines)} machines ({'; '.join(machines[:8])}): each task's from one of them. "
        "Times as shares of full depth's may be compared between tasks, milliseconds may not."
    ]


def _facts(backbone: BackboneInfo) -> str:
    """Return what is said of a backbone after its name."""
    facts = [backbone.family, f"{backbone.layers} layers", backbone.dtype]
    facts += [f"from a checkpoint in {backbone.quantization}"] if backbone.quantization else []
    facts += [f"with an adapter of {backbone.adapter_of}"] if backbone.adapter_of else []
    return ", ".join(facts)


def _rows(view: BoardView) -> list[Row]:
    """Return the rows of all entries of a view, those of every fit seed."""
    return [row for entry in view.entries for rows in entry.rows for row in rows]


def _provenance(view: BoardView) -> list[tuple[str, list[str]]]:
    """Return versions, machines and days that the records and times of a view name, each with its values."""
    values_of: dict[str, set[str]] = defaultdict(set)
    for row in _rows(view):
        for name, value in row.record.env.items():
            values_of[name].add(value)
        for timing in row.timings.values():
            values_of["timed on"].add(f"{timing.machine}, {timing.kernels} layers")
            if timing.date is not None:
                values_of["timed at"].add(timing.date)
    # Limited, since a run on many machines may have any number of values.
    return [(name, sorted(values)[:20]) for name, values in sorted(values_of.items())[:40]]


def _bar_facts(view: BoardView) -> list[str]:
    """Return what the bar says beside the pickers: documents, version, days and machine, as far as they are one."""
    rows = _rows(view)
    timings = [timing for row in rows for timing in row.timings.values()]
    versions = {f"dlbench {row.record.env['dlbench']}" for row in rows if "dlbench" in row.record.env}
    days = sorted({timing.date for timing in timings if timing.date is not None})
    machines = {t.device if t.hardware is None else t.hardware.label for t in timings}
    return [
        f"{view.documents:,} documents",
        *(versions if len(versions) == 1 else ()),
        *([" to ".join(dict.fromkeys((days[0], days[-1])))] if days else ()),
        *(machines if len(machines) == 1 else ()),
    ]


def _picks(site: Site, view: BoardView) -> dict[str, list[dict[str, Any]]]:
    backbones: dict[str, ViewLink] = {}
    for one in site.views:
        backbones.setdefault(one.backbone, one)
    return {
        "backbones": [
            {"name": name, "href": file_of(site, first), "here": name == view.backbone}
            for name, first in backbones.items()
        ],
        "tasks": [
            {"name": one.title, "href": file_of(site, one), "here": one.slug == view.slug}
            for one in site.views
            if one.backbone == view.backbone
        ],
    }


def _chart(site: Site, view: BoardView, standings: Standings, svg: str | None) -> dict[str, Any]:
    return {
        "facts": chart_facts(view),
        "svg": None if svg is None else Markup(svg),  # safe: Vega and `charts.vega` escape every text in it
        "caption": caption(view, standings),
        "most_legend": TELLING,
        "legend": legend(view, view_marks(view, site.marks)),
    }


def _distance_from_half(claim: Claim) -> float:
    """Return how far a comparison is from half of the layers, where methods differ most; 10 where it names no share."""
    budget = re.match(r"At ([\d.]+) % of the layers", claim.condition)
    return abs(float(budget.group(1)) - 50) if budget else 10.0


def _method_section(view: BoardView, standings: Standings) -> dict[str, Any]:
    """Return the table of methods over all budgets, and what is said above it."""
    summaries = standings.summaries
    budgets = sorted({entry.budget for entry in view.entries if entry.budget is not None})
    info = TableInfo(
        targets=[0.95, 0.99] if view.documents >= 2000 else [0.95],
        budgets=budgets,
        gap_budgets=[budget for budget in budgets if any(budget in summary.gaps for summary in summaries)],
    )
    return {
        "summaries": summaries,
        "summary_note": _SUMMARY_NOTE,
        "method_table": html_table(method_columns("page", info), "page"),
        "budgets": budgets,
    }


def _footer(site: Site, view: BoardView) -> dict[str, Any]:
    backbones = [row.record.backbone for row in _rows(view)]
    on_base = [entry for entry in view.entries if entry.role != "dense"]
    return {
        "add": commands(on_base, "my_method.py", "--out", "my-run"),
        "downloads": (*site.downloads, (f"tables/{view.slug}.tex", "this view as a LaTeX table")),
        "provenance": _provenance(view),
        "hashes": sorted({(backbone.name, backbone.sha256) for backbone in backbones}),
        "tracks": [track.name for track in view.tracks],
    }
