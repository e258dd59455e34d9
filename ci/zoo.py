#!/usr/bin/env python
"""Run every method on nano and write the tables of docs/methods.md: `ci/zoo.py [OUT [SEEDS [DOCUMENTS [TASK…]]]]`.

A first run fits and decodes all methods at budgets 0.25, 0.5 and 0.75. A second one runs the controls under the KV
policy `evict`, beside the methods that have no other. Without arguments: build/zoo, 3 fit seeds, 200 documents, all
nano tasks, which takes some two hours on two cores. The same command continues where it stopped.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from dlbench.data.resolve import expand_tasks
from dlbench.leaderboard.analysis.against import against, verdict
from dlbench.leaderboard.analysis.method_stats import Summary
from dlbench.leaderboard.board import read_board
from dlbench.leaderboard.data.paired_scores import ScoredEntry, matched, scored_entries
from dlbench.leaderboard.data.tracks import Track
from dlbench.stats import Interval, corrected, retained

BUDGETS = (0.25, 0.5, 0.75)
DOCS = Path(__file__).parent.parent / "docs" / "methods.md"
BEGIN, END = "<!-- ci/zoo.py -->", "<!-- end -->"
CONTROLS = {"r": "random_skip", "u": "unified_skip", "c": "hidden_router · fixed_input"}
"""Sign in the table → how the labels of the control begin."""


def run(out: Path, seeds: int, documents: int, tasks: Sequence[str]) -> None:
    """Fit and decode, then the controls under `evict`."""
    command = [sys.executable, "-m", "dlbench", "run", "--fit-seeds", str(seeds), "--limit", str(documents)]
    command += ["--no-timing", *(word for task in tasks for word in ("--task", task))]
    subprocess.run([*command, "--method", "all", "--out", str(out)], check=True)
    evicting = ["--kv", "evict", "--method", "random_skip", "--set", "random_skip.per=token"]
    evicting += ["--method", "hidden_router", "--set", "hidden_router.fixed_input=true"]
    subprocess.run([*command, *evicting, "--out", str(out / "evict")], check=True)


def table(out: Path) -> str:
    """Return the results of a run as Markdown, one table per task."""
    board = read_board([out, out / "evict"])
    parts = []
    for view in board.views:
        if not view.suite:
            (track,) = view.tracks
            lines = _lines(track, scored_entries(track, board.runs.scores, board.runs.sources))
            parts.append("\n".join([*lines, "", *_gaps(board.standings[view.slug].summaries)]).rstrip())
    return "\n\n".join(parts)


def _gaps(summaries: Iterable[Summary]) -> Iterator[str]:
    """Yield how much of the oracle's gap the sequence router and the router per token close."""
    for one in summaries:
        if one.label in ("sequence_router", "hidden_router") and one.gaps:
            shares = (f"{g.estimate:.2f} [{g.low:.2f}, {g.high:.2f}] at {b:.0%}" for b, g in sorted(one.gaps.items()))
            said = ", ".join(shares).replace("%", " %")
            yield f"Of the gap from random routing to the honest oracle `{one.label}` closes {said}.  "


def _lines(track: Track, known: Sequence[ScoredEntry]) -> Iterator[str]:
    full = next(one for one in known if one.row.label == "full")
    assert full.scores is not None
    mean = float(full.scores.mean())
    yield f"**{track.task.name}**: {track.task.metric}, {len(full.ids)} documents, full depth {mean:.3f}."
    yield ""
    yield "| | " + " | ".join(f"{budget:.0%}".replace("%", " %") for budget in BUDGETS) + " |"
    yield "| --- " * (1 + len(BUDGETS)) + "|"
    signs = _signs(known)
    for label in dict.fromkeys(one.row.label for one in known if one is not full):
        cells = []
        for budget in BUDGETS:
            rows = [one for one in known if one.row.label == label and one.row.record.run.budget in (None, budget)]
            cells.append(_cell(rows[0], full, signs) if rows else "–")
        yield f"| {label} | " + " | ".join(cells) + " |"


def _cell(entry: ScoredEntry, full: ScoredEntry, signs: dict[tuple[int, str], str]) -> str:
    """Return retained quality, its interval, the realised layer share, and the signs against the controls."""
    quality = entry.row.record.quality
    if len(entry.rows) == 1 and quality is not None and quality.retained is not None and quality.retained_ci95:
        estimate, (low, high) = quality.retained, quality.retained_ci95  # of oracles: against full under their scoring
    elif entry.scores is None or entry.ids != full.ids or full.scores is None:
        return "–"
    elif (kept := retained(entry.scores, full.scores[0], clusters=entry.clusters)) is not None:
        estimate, low, high = kept.estimate, kept.low, kept.high
    else:
        return "–"
    marks = " ".join(f"{name}{signs[id(entry), name]}" for name in CONTROLS if (id(entry), name) in signs)
    share = f"{entry.layers:.0%}".replace("%", " %")
    return f"{estimate:.2f} [{low:.2f}, {high:.2f}] at {share} {marks}".strip()


def _signs(known: Sequence[ScoredEntry]) -> dict[tuple[int, str], str]:
    """Compare each row with each control at the row's layer share: better (+), worse (−) or neither (=).

    A row is better than a control if it is better than every variant of it, and worse if it is worse than every one.
    Tests are paired by document, with a false discovery rate of at most 5 % per table.
    """
    tests: list[tuple[tuple[int, str], Interval, float]] = []
    for entry in known:
        for name, label in CONTROLS.items():
            if entry.row.label.startswith(label) or entry.row.role != "method" or entry.scores is None:
                continue
            variants = matched(entry, [one for one in known if one.row.label.startswith(label)])
            comparison = against(entry, variants, clusters=entry.clusters)
            if comparison is not None:
                tests.append(((id(entry), name), *comparison))
    values = corrected([p for _, _, p in tests])
    signs = {1: "+", -1: "−", 0: "="}
    return {key: signs[verdict(difference, p)] for (key, difference, _), p in zip(tests, values, strict=True)}


def main(out: Path, seeds: int, documents: int, tasks: Sequence[str]) -> None:
    """Run everything and replace the tables in docs/methods.md."""
    run(out, seeds, documents, expand_tasks(tasks or ("nano",)))
    text = DOCS.read_text()
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    DOCS.write_text(f"{before}\n\n{table(out)}\n\n{after}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("build/zoo"), help="run folder [build/zoo]")
    parser.add_argument("seeds", type=int, nargs="?", default=3, help="fits of each method that learns [3]")
    parser.add_argument("documents", type=int, nargs="?", default=200, help="test documents per task [200]")
    parser.add_argument("tasks", nargs="*", help="tasks or suites [nano]")
    given = parser.parse_args()
    main(given.out, given.seeds, given.documents, given.tasks)
