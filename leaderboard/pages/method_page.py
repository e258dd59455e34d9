"""Method pages, and the list of methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from dlbench.leaderboard.analysis import compute_breakdown
from dlbench.leaderboard.charts import method_curves, style, vega
from dlbench.leaderboard.columns.column import TableInfo
from dlbench.leaderboard.columns.html_table import html_table
from dlbench.leaderboard.columns.row_columns import row_columns
from dlbench.leaderboard.columns.row_line import entry_lines
from dlbench.leaderboard.data.entries import BoardEntry, kind_of
from dlbench.leaderboard.data.run_again import commands
from dlbench.leaderboard.data.run_files import Runs
from dlbench.leaderboard.data.views import BoardView
from dlbench.leaderboard.exports import bibtex
from dlbench.leaderboard.pages.environment import environment
from dlbench.leaderboard.pages.method_docs import About, about
from dlbench.leaderboard.pages.sample_pages import first_page
from dlbench.leaderboard.pages.site_context import File, Site, rows_file

_KINDS = {
    "full": "the model itself, at full depth",
    "dense": "the model itself, at full depth",
    "method": "a method",
    "control": "a control: there to be beaten",
    "oracle": "an oracle: it sees what deployment cannot",
}
MOST = 16
"""Tasks and variants whose layers and costs are drawn; more would be a page that nobody reads to its end."""
_SHADES = tuple(style.PALETTE[place][0] for place in (1, 0, 2, 4, 5))


def page_name(method: str, deployable: bool) -> str:
    """Return the name under which a method is introduced: an oracle's honest twins stand beside it."""
    return "oracle" if not deployable and method in ("oracle", "oracle@full", "oracle_cross") else method


def method_files(site: Site, views: Sequence[BoardView], runs: Runs) -> list[File]:
    """Return the pages of all methods, the page that lists them, and what to cite for them."""
    files: list[File] = []
    papers: list[str] = []
    names: dict[str, set[str]] = {}
    for record in runs.records:
        names.setdefault(page_name(record.method.name, record.method.deployable), set()).add(record.method.name)
    introduced: dict[str, About] = {}
    for name, members in sorted(names.items()):
        rows = [record for record in runs.records if record.method.name in members]
        introduced[name] = about(name, {record.method.source_sha256 for record in rows})
        papers += introduced[name].papers
        page = _page(site, views, runs, name, members, introduced[name])
        files.append((f"methods/{site.pages[min(members)]}.html", page))
    return [*files, ("methods.html", _list(site, views, names, introduced)), ("dlbench.bib", bibtex(runs, papers))]


_Rows = Sequence[tuple[BoardView, Sequence[BoardEntry]]]
"""The rows of a method by task."""


def _page(site: Site, views: Sequence[BoardView], runs: Runs, name: str, members: set[str], introduced: About) -> str:
    tasks = [view for view in views if not view.suite]
    by_task = [(view, [entry for entry in view.entries if entry.method in members]) for view in tasks]
    rows: _Rows = [(view, entries) for view, entries in by_task if entries]
    own = [entry for _, entries in rows for entry in entries]
    labels = list(dict.fromkeys(entry.label for entry in own))
    kinds = list(dict.fromkeys(kind_of(entry) for entry in own))
    context: dict[str, Any] = {
        "root": "../",
        "here": "methods",
        "records": site.records,
        "name": name,
        "about": introduced,
        "kind": _KINDS[kinds[0]] if len(kinds) == 1 else " and ".join(_KINDS[kind] for kind in kinds),
        "labels": labels,
        "command": "\n".join(commands(own, name)),
        "svg": _curves(site, tasks, name, labels) if kinds != ["full"] else None,
        "left_out": max(0, len(rows) * len(labels) - MOST),
        "accent": style.PALETTE[1][0],
        "label": style.LABEL[0],
        "axis": style.AXIS[0],
        "heat_ticks": _ticks,
        "depth_ticks": _ticks,
        "sources": sorted({row.record.method.source_sha256 for entry in own for same in entry.rows for row in same}),
        **_compute_sections(rows, labels, runs, depths="full" not in kinds),
        **_row_section(site, rows, runs),
    }
    return environment().get_template("method.html.j2").render(context)


def _curves(site: Site, tasks: Sequence[BoardView], name: str, labels: Sequence[str]) -> Markup | None:
    spec = method_curves.curves(tasks, labels, site.marks)
    if spec is None:
        return None
    title = f"{name}: quality kept over FLOPs, by task"
    return Markup(vega.inline_svg(vega.draw(spec), "curves", title, "The table of its rows below holds all figures."))


def _compute_sections(rows: _Rows, labels: Sequence[str], runs: Runs, *, depths: bool) -> dict[str, Any]:
    """Return where the method spends compute: layers, depths of tokens, parts of the FLOPs, by task and variant."""
    heats: list[tuple[str, compute_breakdown.Heat]] = []
    token_depths: list[tuple[str, list[compute_breakdown.Depths]]] = []
    costs: list[tuple[str, list[compute_breakdown.Spent]]] = []
    for view, entries in rows:
        for label in labels if len(costs) < MOST else ():
            settings = [entry for entry in entries if entry.label == label and entry.ok]
            title = f"{view.title} · {label}" if len(labels) > 1 else view.title
            if heat := compute_breakdown.heat(settings, runs.usage):
                heats.append((title, heat))
            if counts := compute_breakdown.depths(settings, runs.usage):
                token_depths.append((title, counts))
            if spent := compute_breakdown.spent(settings):
                costs.append((title, spent))
    return {
        "heats": heats,
        "depths": token_depths if depths else [],
        "costs": costs,
        "widest": max((one.total for _, group in costs for one in group), default=1.0) or 1.0,
        "parts_of_cost": compute_breakdown.PARTS,
        "shades": _SHADES,
    }


def _row_section(site: Site, rows: _Rows, runs: Runs) -> dict[str, Any]:
    """Return the table of the method's rows; each ends in links to the board and to its samples."""
    lines = []
    for view, entries in rows:
        for line in entry_lines(view, entries):
            samples = first_page(view, line.entry, runs)
            board = f"../{rows_file(site, view)}#{line.entry.id}"
            lines.append((line, board, f"../{samples}.html" if samples else ""))
    extras = _extras(entry for _, entries in rows for entry in entries)
    return {"rows": lines, "row_table": html_table(row_columns("method", TableInfo(extras=extras)), "method")}


def _extras(entries: Iterable[BoardEntry]) -> list[str]:
    """Return the names of further metrics, as far as a table has room for them."""
    qualities = [entry.first.record.quality for entry in entries]
    return sorted({name for quality in qualities if quality is not None for name in quality.extra})[:8]


def _ticks(count: int) -> list[int]:
    """Return a handful of places among so many, the first and the last with them."""
    step = max(1, round((count - 1) / 4))
    ticks = list(range(0, count, step))
    if count - 1 - ticks[-1] > step / 2:
        ticks.append(count - 1)
    return ticks


def _list(
    site: Site, views: Sequence[BoardView], names: Mapping[str, set[str]], introduced: Mapping[str, About]
) -> str:
    groups: dict[str, list[dict[str, Any]]] = {"Methods": [], "Controls": [], "References and oracles": []}
    for name, members in names.items():
        entries = [entry for view in views for entry in view.entries if entry.method in members]
        if not entries:
            continue
        kinds = {kind_of(entry) for entry in entries}
        group = "Methods" if "method" in kinds else "Controls" if "control" in kinds else "References and oracles"
        half = [entry for entry in entries if entry.budget == 0.5 and entry.ok and entry.retained is not None]
        first = next((entry for entry in entries if kind_of(entry) == "method"), entries[0])
        groups[group].append(
            {
                "name": name,
                "page": site.pages[min(members)],
                "mark": site.marks[first.label],
                "summary": introduced[name].summary,
                "papers": introduced[name].papers,
                "kept": half[0].retained if half else None,
            }
        )
    context = {
        "root": "",
        "here": "methods",
        "records": site.records,
        "groups": [(title, cards) for title, cards in groups.items() if cards],
    }
    return environment().get_template("methods.html.j2").render(context)


def page_stems(methods: Sequence[tuple[str, bool]], slug: Any) -> dict[str, str]:
    """Return, for every method, the stem of its page: readable, and no two alike."""
    stems: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for method, deployable in sorted(methods):
        name = page_name(method, deployable)
        if name not in by_name:
            stem = slug(name) or "method"
            while stem in by_name.values():
                stem += "-2"
            by_name[name] = stem
        stems[method] = by_name[name]
    return stems
