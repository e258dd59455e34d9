"""The result of a validation in words: for a terminal, and as Markdown for the page of a pull request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from dlbench.leaderboard.data.paired_scores import ScoredEntry, scored_entries
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.leaderboard.data.tracks import CONTROLS
from dlbench.stats import paired_difference
from dlbench.submission.validation import Validation


def fault_lines(validation: Validation) -> Iterator[str]:
    """Yield the faults, one kind after the other, each kind with its remedy."""
    faults = validation.faults
    for code, count in sorted(faults.counts.items()):
        shown = [fault for fault in faults.faults if fault.code == code]
        yield f"{code}: {shown[0].remedy}"
        for fault in shown:
            yield f"    {fault.where}: {fault.what}"
        if count > len(shown):
            yield f"    and {count - len(shown):,} more"


def markdown(folder: Path, validation: Validation) -> Iterator[str]:
    """Yield the lines of a report: faults, rows, and differences against full depth and the controls."""
    manifest = validation.manifest
    yield f"## Submission `{_cell(folder.name)}`"
    yield ""
    if manifest is not None:
        yield f"By {_cell(manifest.author) or 'an author who is not named'}, sealed `{manifest.seal[:16]}`, on "
        yield f"{_cell(manifest.hardware.label)}; {_cell(manifest.isolation)}."
        yield ""
    if not validation.passed:
        yield f"**Rejected: {validation.faults.counts.total():,} faults.**"
        yield ""
        yield "| code | where | what | remedy |"
        yield "| --- | --- | --- | --- |"
        for fault in validation.faults.faults:
            yield f"| {fault.code} | {_cell(fault.where)} | {_cell(fault.what)} | {_cell(fault.remedy)} |"
        return
    yield "**Valid**: every figure follows from the samples. Whether the samples follow from the method is for a rerun."
    yield ""
    yield from _differences(folder)


def _differences(folder: Path) -> Iterator[str]:
    """A table: each method against full depth and against the controls, at every budget; fit seeds are averaged."""
    controls = sorted(CONTROLS)
    headers = ["task", "row", "layers", "total FLOPs", "score", "− full [95 %]", *(f"− {c} [95 %]" for c in controls)]
    yield f"| {' | '.join(headers)} |"
    yield "| --- " * len(headers) + "|"
    runs = read_runs([folder])
    for track in runs.tracks:
        entries = scored_entries(track, runs.scores, runs.sources, unreachable=True)
        by_method: dict[str, list[ScoredEntry]] = defaultdict(list)
        for entry in entries:
            by_method[entry.row.record.method.name].append(entry)
        for entry in entries:
            if entry.row.role != "method" or entry.scores is None:
                continue
            at = entry.where[0]
            others = [next((o for o in by_method[n] if o.where[0] in (at, None)), None) for n in ("full", *controls)]
            cells = [track.task.name, _cell(entry.row.label + ("" if at is None else f" at {at:g}"))]
            cells += [f"{entry.layers:.3f}", f"{entry.total:.3f}", f"{entry.scores.mean():.3f}"]
            yield f"| {' | '.join([*cells, *(_difference(entry, other) for other in others)])} |"


def _difference(one: ScoredEntry, other: ScoredEntry | None) -> str:
    """The difference in score from another row of the task, with its interval."""
    if other is None or other is one or one.scores is None or other.scores is None or one.ids != other.ids:
        return "–"
    difference = paired_difference(one.scores, other.scores, clusters=one.clusters)
    return f"{difference.estimate:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _cell(text: str) -> str:
    """A stranger's text in a cell of Markdown, as it is and no markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|!#@" else c for c in escaped)
