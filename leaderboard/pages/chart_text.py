"""What a page says about its chart: the line below the headline, the caption and the legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dlbench.leaderboard.analysis.view_stats import Standings
from dlbench.leaderboard.charts.style import Mark
from dlbench.leaderboard.data.entries import shown
from dlbench.leaderboard.data.views import BoardView


def chart_facts(view: BoardView) -> str:
    """Say what was measured: the metric, on how many documents, under which rules."""
    first = view.tracks[0]
    run = first.rows[0].record.run
    if view.suite:
        what = f"Mean over {len(view.tracks)} tasks of the share of full depth’s quality that is kept"
    else:
        what = f"{first.task.metric} on {first.task.name}, version {first.task.version}"
    prompts = "prompts at full depth" if run.prompt == "full" else "prompts routed like the output"
    longest = max(track.rows[0].record.run.max_new_tokens for track in view.tracks)
    return f"{what}; {view.documents:,} documents, {prompts}, at most {longest} new tokens."


def caption(view: BoardView, standings: Standings) -> str:
    """Say what the lines and bands of the chart are."""
    frontiers = standings.frontiers.get(view.axes[0].key, {}) if view.axes else {}
    sentences = []
    if "methods" in frontiers:
        sentences.append("Blue: the best that methods reach at each cost, with its 95 % band.")
    if "controls" in frontiers:
        sentences.append("Brown: the same of the controls.")
    if any(standings.bounds_of(entry) for entry in view.entries if shown(entry)):
        sentences.append("Whiskers are 95 % intervals.")
    return " ".join(sentences)


LegendGroup = tuple[str, list[dict[str, Any]]]
"""Title, series."""


def legend(view: BoardView, marks: Sequence[Mark]) -> list[LegendGroup]:
    """Return the legend: groups of series, those that keep most first."""
    groups: list[LegendGroup] = []
    for title, kinds in (
        ("Methods", ("method",)),
        ("Controls", ("control",)),
        ("References and ceilings", ("full", "dense", "oracle")),
    ):
        series = [_legend_item(view, mark) for mark in marks if mark.kind in kinds]
        if series:
            series.sort(key=lambda one: (-one[0], one[1]["mark"].label))
            groups.append((title, [item for _, item in series]))
    return groups


def _legend_item(view: BoardView, mark: Mark) -> tuple[float, dict[str, Any]]:
    """Return a series with the most that it keeps, by which its group is sorted."""
    entries = [entry for entry in view.entries if entry.label == mark.label and shown(entry)]
    return max(entry.retained or 0.0 for entry in entries), {"mark": mark, "id": entries[0].id}
