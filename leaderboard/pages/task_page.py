"""Render the pages of a site from its views."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dlbench.leaderboard import formatting
from dlbench.leaderboard.analysis.claims import Claim
from dlbench.leaderboard.analysis.headlines import chart_headline
from dlbench.leaderboard.analysis.ranking import RERUN
from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.charts.style import Mark, view_marks
from dlbench.leaderboard.data.tracks import cut_prompts
from dlbench.leaderboard.data.views import BoardEntry, BoardView, kind_of, shown
from dlbench.leaderboard.pages.environment import environment

MOST_ROWS = 150
"""Rows that a view's first page shows; beyond, one per method, and all on a page of their own."""


File = tuple[str, str | bytes]
"""A path within the site, with what stands there."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A view as others link to it."""

    slug: str
    title: str
    backbone: str


@dataclass(frozen=True, slots=True)
class Site:
    """What all pages of a site have in common; small, since every worker gets it with every view.

    Attributes:
        records: how many there are.
        pages: a method's name → the stem of its page.
        downloads: file names with what they hold.
        provenance: what the records say about where they come from.
        usual: the trust that needs no badge, since all rows have it.
        warnings: banners.
    """

    views: tuple[Heading, ...]
    records: int
    marks: Mapping[str, Mark]
    pages: Mapping[str, str]
    downloads: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, tuple[str, ...]], ...]
    usual: str
    warnings: tuple[str, ...]


def file_of(site: Site, view: BoardView | Heading) -> str:
    """Return the file of a view: the first is the front page."""
    return "index.html" if view.slug == site.views[0].slug else f"{view.slug}.html"


def view_page(
    site: Site,
    view: BoardView,
    found: Standings,
    said: tuple[Sequence[str], Sequence[Claim]],
    svg: str | None,
    samples: Mapping[str, str],
    whole: bool = False,
) -> str:
    """Render one view.

    Args:
        site: what all pages have in common.
        view: what is shown.
        found: its statistics.
        said: lines about it, and single comparisons.
        svg: its chart, escaped.
        samples: entry → its page of samples.
        whole: show every row, however many there are.
    """
    marks = view_marks(view, site.marks)
    few = whole or len(view.entries) <= MOST_ROWS
    records = [row.record for entry in view.entries for rows in entry.rows for row in rows]
    budgets = sorted({entry.budget for entry in view.entries if entry.budget is not None})
    labels = list(dict.fromkeys(entry.label for entry in view.entries))
    backbone = records[0].backbone if records else None
    context: dict[str, Any] = {
        "root": "",
        "here": "board",
        "records": site.records,
        "view": view,
        "marks": [site.marks[label] for label in labels],
        "symbol_of": {label: place for place, label in enumerate(labels)},
        "page_of": site.pages,
        "methods": {entry.method for entry in view.entries},
        "backbone_facts": _backbone_facts(view),
        "warnings": [*site.warnings, *cut_prompts(records)],
        "picks": _picks(site, view),
        "headline": chart_headline(view, found),
        "facts": _facts(view, svg is not None),
        "svg": None if svg is None else Markup(svg),  # safe: Vega and `drawing` escape every text in it
        "bands": _bands(view, found),
        "legend": _legend(view, marks),
        "lines": said[0],
        "said": sorted(said[1], key=_telling),
        "summaries": found.summaries,
        "summary_note": _summary_note(found),
        "targets": [0.95, 0.99] if view.documents >= 2000 else [0.95],
        "gap_budgets": [one for one in budgets if any(one in summary.gaps for summary in found.summaries)],
        "rank_note": _rank_note(view, site.usual),
        "kinds": _kinds(view),
        "budgets": budgets,
        "sections": _sections(view, found, few),
        "places": found.places,
        "fronts": found.fronts,
        "bounds_of": lambda entry: entry.bounds or found.bounds.get(entry.id),
        "samples": samples,
        "any_samples": bool(samples),
        "columns": 10 - view.suite + 2 * len(view.batches) + bool(samples),
        "decimals": formatting.decimals(entry.score for entry in view.entries if entry.score is not None),
        "usual": site.usual,
        "beyond": None if few else f"{view.slug}-all.html",
        "missing": _missing(view),
        "downloads": (*site.downloads, (f"tables/{view.slug}.tex", "this view as a LaTeX table")),
        "provenance": site.provenance,
        "hashes": sorted({(one.backbone.name, one.backbone.sha256) for one in records}),
        "tracks": [track.name for track in view.tracks],
        "backbone": backbone,
    }
    return environment().get_template("view.html.j2").render(context)


def _telling(claim: Claim) -> float:
    """Return what comes first: comparisons near half of the layers, where methods are furthest apart."""
    found = re.match(r"At ([\d.]+) % of the layers", claim.condition)
    return abs(float(found.group(1)) - 50) if found else 10.0


def _backbone_facts(view: BoardView) -> str:
    full = next((entry.first.record.backbone for entry in view.of("full")), None)
    return "" if full is None else f", {full.family}, {full.layers} layers, {full.dtype}"


def _picks(site: Site, view: BoardView) -> dict[str, list[dict[str, Any]]]:
    backbones: dict[str, Heading] = {}
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


def _facts(view: BoardView, drawn: bool) -> str:
    first = view.tracks[0]
    run = first.rows[0].record.run
    if view.suite:
        what = f"Mean over {len(view.tracks)} tasks of the share of full depth’s quality that is kept"
    else:
        what = f"{first.task.metric} on {first.task.name}, version {first.task.version}"
    prompts = "prompts at full depth" if run.prompt == "full" else "prompts routed like the output"
    longest = max(track.rows[0].record.run.max_new_tokens for track in view.tracks)
    return f"{what}; {view.documents:,} documents, {prompts}, at most {longest} new tokens."


def _bands(view: BoardView, found: Standings) -> str:
    there = found.frontiers.get(view.axes[0].key, {}) if view.axes else {}
    parts = []
    if "methods" in there:
        parts.append("Blue: the best that methods reach at each cost, with its 95 % band.")
    if "controls" in there:
        parts.append("Brown: the same of the controls.")
    return " ".join([*parts, "Whiskers are 95 % intervals."])


def _legend(view: BoardView, marks: Sequence[Mark]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Return the legend: groups of marks, each with what its series keeps at the middle budget."""
    budgets = sorted({entry.budget for entry in view.of("method") if entry.budget is not None})
    middle = min(budgets, key=lambda one: (abs(one - 0.5), one), default=None)
    column = "" if middle is None else f"kept at {100 * middle:.4g} %"
    groups = (
        ("Methods", ("method",)),
        ("Controls", ("control",)),
        ("References and ceilings", ("full", "dense", "oracle")),
    )
    found = []
    for title, kinds in groups:
        items = []
        for mark in (mark for mark in marks if mark.kind in kinds):
            mine = [entry for entry in view.entries if entry.label == mark.label and shown(entry)]
            here = next((entry for entry in mine if entry.budget in (middle, None)), None)
            number = formatting.hundredths(here.retained) if here else formatting.NOTHING
            order = -(here.retained or 0.0) if here else 1.0
            items.append((order, {"mark": mark, "id": (here or mine[0]).id, "number": number}))
        if items:
            items.sort(key=lambda one: one[0])
            found.append((title, column, [item for _, item in items]))
            column = ""
    return found


def _kinds(view: BoardView) -> list[tuple[str, str]]:
    titles = {"method": "methods", "control": "controls", "reference": "references", "oracle": "oracles"}
    there = {"reference" if kind_of(one) in ("full", "dense") else kind_of(one) for one in view.entries}
    return [(kind, title) for kind, title in titles.items() if kind in there] if len(there) > 1 else []


def _rank_note(view: BoardView, usual: str) -> str:
    said = (
        "Ranked by quality within each budget, with the ranks that the data leave open, all of them together; "
        "rows that share a letter cannot be told apart."
    )
    trusts = {entry.trust for entry in view.entries}
    if not trusts & RERUN:
        return f"{said} All rows are {usual or 'self-reported or validated'}: nobody has rerun them yet."
    if trusts - RERUN:
        return f"{said} Only rows that were rerun are ranked; the others stand below them."
    return said


def _summary_note(found: Standings) -> str:
    return (
        "One row per method. The area under its frontier, from 20 to 100 % of full's FLOPs, sums up the whole trade; "
        "it counts as 0 below a method's cheapest row. “Enough” is the cheapest setting, by total "
        "FLOPs, that keeps 95 % of the quality beyond doubt, as do all dearer ones."
    )


def _missing(view: BoardView) -> str:
    if not view.missing:
        return ""
    listed = ", ".join(f"{label} ({count} of {len(view.tracks)})" for label, count in view.missing)
    return f"Not on all tasks, so not averaged here: {listed}. See the tasks one by one."


def _sections(view: BoardView, found: Standings, whole: bool) -> list[dict[str, Any]]:
    """Return the rows in sections: references, each budget from the largest, oracles."""
    entries = view.entries if whole else _one_each(view)
    references = [entry for entry in entries if entry.role in ("full", "dense")]
    oracles = [entry for entry in entries if entry.role == "oracle"]
    by_budget: dict[float | None, list[BoardEntry]] = defaultdict(list)
    for entry in entries:
        if entry.role == "method":
            by_budget[entry.budget].append(entry)

    def order(entry: BoardEntry) -> tuple[Any, ...]:
        spot = found.places.get(entry.id)
        return (spot is None, spot.rank if spot else 0, not entry.ok, -(entry.retained or 0.0), entry.label)

    sections = []
    if references:
        sections.append(("Full depth, and models trained smaller", references))
    for budget in sorted(by_budget, key=lambda one: -(one or 0.0)):
        title = "Without a budget" if budget is None else f"At {100 * budget:.6g} % of the layers"
        sections.append((title, sorted(by_budget[budget], key=order)))
    if oracles:
        sections.append(("Oracles: they see what deployment cannot. Ceilings to measure against, not entries", oracles))
    return [{"title": title, "entries": members} for title, members in sections]


def _one_each(view: BoardView) -> list[BoardEntry]:
    """Return one entry per series: the one nearest to half of the layers."""
    best: dict[str, BoardEntry] = {}
    for entry in view.entries:
        far = abs((entry.budget or 0.5) - 0.5)
        kept = best.get(entry.label)
        if kept is None or (not entry.ok, far) < (not kept.ok, abs((kept.budget or 0.5) - 0.5)):
            best[entry.label] = entry
    return list(best.values())[:MOST_ROWS]


__all__ = ["File", "Heading", "Site", "file_of", "view_page"]
