"""The result of a validation in words: for a terminal, and as Markdown for the page of a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dlbench.errors import DlbenchError
from dlbench.leaderboard.analysis.compare import Comparison, compare
from dlbench.leaderboard.data.run_files import read_runs
from dlbench.leaderboard.data.tracks import CONTROLS, Row
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
    """A table per task: each method against full depth and against the controls, at every budget."""
    yield "| task | row | layers | total FLOPs | score | − full [95 %] | " + " | ".join(
        f"− {name} [95 %]" for name in sorted(CONTROLS)
    ) + " |"
    yield "| --- " * (6 + len(CONTROLS)) + "|"
    for track in read_runs([folder]).tracks:
        controls = [
            next((row.label for row in track.rows if row.record.method.name == name), "") for name in sorted(CONTROLS)
        ]
        seen = set()
        for row in track.rows:
            budget = row.record.run.budget
            if row.role != "method" or (row.label, budget) in seen:
                continue
            seen.add((row.label, budget))
            against = [_difference(folder, row, other) for other in ("full", *controls)]
            yield f"| {track.task.name} | {_cell(_named(row))} | {_figures(row)} | {' | '.join(against)} |"


def _named(row: Row) -> str:
    budget = row.record.run.budget
    return row.label if budget is None else f"{row.label} at {budget:g}"


def _figures(row: Row) -> str:
    compute, quality = row.record.compute, row.record.quality
    if compute is None or quality is None:
        return "– | – | –"
    return f"{compute.layer_share:.3f} | {compute.flop_share_total:.3f} | {quality.mean:.3f}"


def _difference(folder: Path, row: Row, other: str) -> str:
    """The difference in score from another row of the task, with its interval, in bold where it is beyond doubt."""
    if not other or other == row.label:
        return "–"
    try:
        budget, task = row.record.run.budget, row.record.task.name
        one: Comparison = compare(folder, row.label, other, at=budget, task=task, examples=0)[0]
    except DlbenchError:  # no budget in common
        return "–"
    text = f"{one.difference.estimate:+.3f} [{one.difference.low:+.3f}, {one.difference.high:+.3f}]"
    return f"**{text}**" if one.verdict else text


def _cell(text: str) -> str:
    """A stranger's text in a cell of Markdown, as it is and no markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|!#@" else c for c in escaped)
